/* A short list, newest last. */
#include "collector/configs.h"

#include <stdlib.h>
#include "base/log.h"
#include "base/xmem.h"

struct entry {
	const struct config *config;
	struct config *owned; /* null for the first */
};

struct configs {
	const struct board *board;
	struct entry entries[CONFIGS_MAX];
	size_t count;
	const struct config *pinned;
	size_t last; /* found: most records come in rows of one */
	void (*more)(void *arg);
	void *arg;
};

struct configs *
configs_new(const struct config *first, const struct board *board, void (*more)(void *arg),
            void *arg)
{
	struct configs *configs = xcalloc(1, sizeof(*configs));
	configs->board = board;
	configs->entries[configs->count++].config = first;
	configs->pinned = first;
	configs->more = more;
	configs->arg = arg;
	return configs;
}

void
configs_free(struct configs *configs)
{
	if (configs == NULL)
		return;
	for (size_t i = 0; i < configs->count; i++)
		config_free(configs->entries[i].owned);
	free(configs);
}

static const struct config *
find(struct configs *configs, uint32_t serial)
{
	if (configs->entries[configs->last].config->serial == serial)
		return configs->entries[configs->last].config;
	for (size_t i = 0; i < configs->count; i++) {
		if (configs->entries[i].config->serial != serial)
			continue;
		configs->last = i;
		return configs->entries[i].config;
	}
	return NULL;
}

static bool
is_run_with(const struct configs *configs, uint32_t serial)
{
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++) {
		const struct board_process *worker = &configs->board->workers[i];
		if (atomic_load_explicit(&worker->pid, memory_order_relaxed) > 0 &&
		    atomic_load_explicit(&worker->config, memory_order_relaxed) == serial)
			return true;
	}
	return false;
}

void
configs_pin(struct configs *configs, const struct config *config)
{
	configs->pinned = config;
}

/* The one in force and the newest, which may be on trial, stay whatever happens. */
static void
make_room(struct configs *configs)
{
	size_t oldest = 0;
	while (oldest + 2 < configs->count &&
	       (configs->entries[oldest].config == configs->pinned ||
	        is_run_with(configs, configs->entries[oldest].config->serial)))
		oldest++;
	if (configs->entries[oldest].config == configs->pinned)
		oldest++;
	config_free(configs->entries[oldest].owned);
	configs->count--;
	for (size_t i = oldest; i < configs->count; i++)
		configs->entries[i] = configs->entries[i + 1];
	configs->last = 0;
}

void
configs_add(struct configs *configs, struct config *config)
{
	if (find(configs, config->serial) != NULL) {
		config_free(config);
		return;
	}
	if (configs->count == CONFIGS_MAX)
		make_room(configs);
	configs->entries[configs->count++] = (struct entry){.config = config, .owned = config};
}

const struct config *
configs_of(struct configs *configs, uint32_t serial)
{
	static const struct config none;
	const struct config *config = find(configs, serial);
	if (config == NULL && configs->more != NULL) {
		configs->more(configs->arg);
		config = find(configs, serial);
	}
	return config != NULL ? config : &none;
}
