/* Makes and maps the shared memory of all processes: the board and the rings' bytes. */
#include "base/board.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static uint32_t
fnv1a(uint32_t hash, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;

	while (n-- > 0)
		hash = (hash ^ *p++) * 16777619u;
	return hash;
}

/* Hashes the linker's build ID of the main program, which comes first in the walk. */
static int
on_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	uint32_t *hash = arg;

	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		const char *p = (const char *)(info->dlpi_addr + ph->p_vaddr);
		size_t left = ph->p_memsz;

		while (ph->p_type == PT_NOTE && left >= sizeof(ElfW(Nhdr))) {
			const ElfW(Nhdr) *note = (const void *)p;
			size_t name = (note->n_namesz + 3u) & ~3u;
			size_t length = sizeof(*note) + name + ((note->n_descsz + 3u) & ~3u);

			if (length > left)
				break;
			if (note->n_type == NT_GNU_BUILD_ID)
				*hash = fnv1a(*hash, p + sizeof(*note) + name, note->n_descsz);
			p += length;
			left -= length;
		}
	}
	return 1;
}

/* Two builds differ in it, whatever they changed; one build always agrees with itself. */
static uint32_t
build_version(void)
{
	size_t size = sizeof(struct board);
	uint32_t hash = fnv1a(2166136261u, TAILRACE_VERSION, sizeof(TAILRACE_VERSION));

	dl_iterate_phdr(on_object, &hash);
	return fnv1a(hash, &size, sizeof(size));
}

static int
create_memory(const char *name, size_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int saved;

	if (fd == -1)
		return -1;
	if (ftruncate(fd, (off_t)size) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* Maps `size` shared bytes of a descriptor that holds exactly so many. */
static void *
map_memory(int fd, size_t size)
{
	struct stat st;
	void *memory;

	if (fstat(fd, &st) == -1)
		return NULL;
	if ((uint64_t)st.st_size != size) {
		errno = EINVAL;
		return NULL;
	}
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

int
board_create(void)
{
	int fd = create_memory("tailrace-board", sizeof(struct board));
	struct board *board;

	if (fd == -1)
		return -1;
	board = map_memory(fd, sizeof(*board));
	if (board == NULL || getrandom(board->deep_key, sizeof(board->deep_key), 0) !=
	                         (ssize_t)sizeof(board->deep_key)) {
		board_detach(board);
		close(fd);
		return -1;
	}
	board->version = build_version();
	board->size = sizeof(*board);
	board->created_ns = clock_now_ns();
	ticket_keys_init(&board->tickets, board->created_ns);
	board->magic = BOARD_MAGIC;
	board_detach(board);
	return fd;
}

struct board *
board_attach(int fd)
{
	struct board *board = map_memory(fd, sizeof(*board));

	if (board == NULL)
		return NULL;
	if (board->magic == BOARD_MAGIC && board->version == build_version() &&
	    board->size == sizeof(*board))
		return board;
	board_detach(board);
	errno = EPROTO;
	return NULL;
}

void
board_detach(struct board *board)
{
	if (board != NULL)
		munmap(board, sizeof(*board));
}

uint64_t
board_upstream_key(const struct config_upstream *upstream)
{
	uint64_t hash = 14695981039346656037u; /* FNV-1a, 64 bits */

	for (size_t i = 0; i <= upstream->server_count; i++) {
		const char *text = i == 0 ? upstream->name : upstream->servers[i - 1].text;

		do /* the closing zero too */
			hash = (hash ^ (unsigned char)*text) * 1099511628211u;
		while (*text++ != '\0');
	}
	return hash != 0 ? hash : 1;
}

int
board_rings_create(size_t ring_bytes)
{
	return create_memory("tailrace-rings", ring_bytes * BOARD_RINGS_MAX);
}

void *
board_rings_attach(int fd, size_t ring_bytes)
{
	return map_memory(fd, ring_bytes * BOARD_RINGS_MAX);
}

uint64_t
board_threads_sum(const struct board *board, size_t offset)
{
	uint64_t sum = 0;
	for (size_t g = 0; g < BOARD_GENERATIONS_MAX; g++) {
		for (size_t t = 0; t < BOARD_THREADS_MAX; t++) {
			const char *thread = (const char *)&board->threads[g][t];
			const _Atomic uint64_t *field = (const void *)(thread + offset);
			sum += atomic_load_explicit(field, memory_order_relaxed);
		}
	}
	return sum;
}

uint64_t
board_loop_lag_max_ns(const struct board *board)
{
	uint64_t max_ns = 0;
	for (size_t g = 0; g < BOARD_GENERATIONS_MAX; g++) {
		for (size_t t = 0; t < BOARD_THREADS_MAX; t++) {
			uint64_t ns = atomic_load_explicit(&board->threads[g][t].loop_lag_max_ns,
			                                   memory_order_relaxed);
			max_ns = ns > max_ns ? ns : max_ns;
		}
	}
	return max_ns;
}
