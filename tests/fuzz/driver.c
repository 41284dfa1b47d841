/* Runs one fuzz target over its corpus, then over random mutations of it, for some seconds. Usage:
 * TARGET [-s SECONDS] [-r SEED] FILE|FOLDER... Works with any compiler; the target's function is
 * libFuzzer's, so that clang's -fsanitize=fuzzer can take this file's place. An input that crashes
 * is written to crash-TARGET in the working folder. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX 16384
#define INPUTS_MAX 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/* So that on_crash() sees what the sanitizer finds. */
const char *
__asan_default_options(void)
{
	return "abort_on_error=1";
}

struct input {
	size_t length;
	uint8_t *bytes;
};

static struct input inputs[INPUTS_MAX];
static size_t input_count;
static uint8_t now[INPUT_MAX]; /* the input that runs */
static size_t now_length;
static char crash_name[256];
static uint64_t state;

static uint64_t
next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static size_t
below(size_t n)
{
	return n ? (size_t)(next() % n) : 0;
}

static void
on_crash(int number)
{
	int fd = open(crash_name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd != -1 && write(fd, now, now_length) == -1)
		close(fd);
	signal(number, SIG_DFL);
	raise(number);
}

static void
add_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	struct input *input = &inputs[input_count];

	if (!file || input_count == INPUTS_MAX)
		exit(2);
	input->bytes = malloc(INPUT_MAX);
	if (!input->bytes)
		exit(2);
	input->length = fread(input->bytes, 1, INPUT_MAX, file);
	input_count++;
	fclose(file);
}

static void
add(const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	char name[4096];

	if (!folder) {
		add_file(path);
		return;
	}
	while ((entry = readdir(folder)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
		add_file(name);
	}
	closedir(folder);
}

static void
insert(size_t at, const uint8_t *bytes, size_t length)
{
	if (now_length + length > INPUT_MAX)
		return;
	memmove(now + at + length, now + at, now_length - at);
	memcpy(now + at, bytes, length);
	now_length += length;
}

static void
cut(size_t at, size_t length)
{
	memmove(now + at, now + at + length, now_length - at - length);
	now_length -= length;
}

/* One change: a bit, a byte, a piece of another input, a piece gone, doubled. */
static void
mutate(void)
{
	static const uint8_t nasty[] = "\0\r\n\t :;,=%#?{}[]\"\\/0129afAF+-_\x7f\x80\xff";
	const struct input *other = &inputs[below(input_count)];
	size_t at = below(now_length + 1), length;

	switch (now_length ? below(7) : 2) {
	case 0:
		now[at % now_length] ^= (uint8_t)(1u << below(8));
		break;
	case 1:
		now[at % now_length] = nasty[below(sizeof nasty - 1)];
		break;
	case 2:
		insert(at, &nasty[below(sizeof nasty - 1)], 1);
		break;
	case 3:
		length = below(now_length - at % now_length) + 1;
		cut(at % now_length, length > 64 ? 64 : length);
		break;
	case 4:
		length = below(other->length > 64 ? 64 : other->length);
		insert(at, other->bytes + below(other->length - length + 1), length);
		break;
	case 5:
		now_length = at;
		break;
	default:
		length = below((now_length - at > 128 ? 128 : now_length - at) + 1);
		if (length) {
			uint8_t piece[128];

			memcpy(piece, now + at, length);
			insert(at, piece, length);
		}
	}
}

static void
take(const struct input *input)
{
	memcpy(now, input->bytes, input->length);
	now_length = input->length;
}

static double
seconds(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* A buffer of exactly its size, so that the address sanitizer sees each byte read beyond it. */
static void
run(void)
{
	uint8_t *exact = malloc(now_length ? now_length : 1);

	if (!exact)
		exit(2);
	memcpy(exact, now, now_length);
	LLVMFuzzerTestOneInput(exact, now_length);
	free(exact);
}

int
main(int argc, char **argv)
{
	static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	const char *name = strrchr(argv[0], '/');
	double limit_s = 1, end_s;
	uint64_t runs = 0;
	int option;

	state = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15ull + (uint64_t)getpid();
	while ((option = getopt(argc, argv, "s:r:")) != -1) {
		if (option == 's')
			limit_s = atof(optarg);
		else if (option == 'r')
			state = strtoull(optarg, NULL, 10);
		else
			return 2;
	}
	state |= 1;
	printf("seed %llu\n", (unsigned long long)state);
	fflush(stdout);
	snprintf(crash_name, sizeof crash_name, "crash-%s", name ? name + 1 : argv[0]);
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		signal(signals[i], on_crash);
	for (; optind < argc; optind++)
		add(argv[optind]);
	if (input_count == 0)
		return 2;
	for (size_t i = 0; i < input_count; i++, runs++) {
		take(&inputs[i]);
		run();
	}
	for (end_s = seconds() + limit_s; seconds() < end_s; runs++) {
		take(&inputs[below(input_count)]);
		for (size_t i = 0, changes = 1 + below(6); i < changes; i++)
			mutate();
		run();
	}
	printf("%zu inputs, %llu runs, no crash\n", input_count, (unsigned long long)runs);
	return 0;
}
