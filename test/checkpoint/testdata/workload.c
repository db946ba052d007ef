// A program that checks its own memory, for tests of checkpoints.
//
//	workload NAME=KIND:MIB ...
//
// Every argument is an area of memory of that kind. The program fills all of its pages
// with a pattern of the number of the page and of a sequence number. Then it goes round:
// it checks a page against the sequence number that it remembers elsewhere, and
// writes the page again with the next one. Memory that was saved at two different moments,
// or not saved, does not match. Each line of output is one round of an area:
//
//	ok NAME ROUND LONGEST-GAP-IN-MS
//	corrupt NAME PAGE
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { page = 4096, words = page / 8, batch = 256 };

struct area {
	char name[32], kind[32];
	uint64_t *memory;
	uint32_t *sequence; // of each page
	long pages;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int is(struct area *a, const char *kind)
{
	return strcmp(a->kind, kind) == 0;
}

static uint64_t word(long n, uint64_t sequence, int i)
{
	uint64_t x = (uint64_t)n * 0x9e3779b97f4a7c15u + sequence * 0xd1342543de82ef95u + (uint64_t)i * 0xbf58476d1ce4e5b9u;
	return x ^ x >> 29;
}

static void fill(struct area *a, long n)
{
	if (is(a, "idle") && n % 2) { // as most programs' memory, half of it compresses well
		for (int i = 0; i < words; i++)
			a->memory[n * words + i] = (uint64_t)(n + i % 16);
		return;
	}
	for (int i = 0; i < words; i++)
		a->memory[n * words + i] = word(n, a->sequence[n], i);
}

static void check(struct area *a, long n)
{
	for (int i = 0; i < words; i++)
		if (a->memory[n * words + i] != word(n, a->sequence[n], i)) {
			printf("corrupt %s %ld\n", a->name, n);
			fflush(stdout);
			_exit(2);
		}
}

static void *map(size_t size, int flags, int fd)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static void *map_file(int fd, size_t size, int flags)
{
	if (fd < 0 || ftruncate(fd, (off_t)size))
		die("file");
	void *p = map(size, flags, fd);
	close(fd);
	return p;
}

// Guard pages before and after, as allocators and thread stacks have them.
static void *map_guarded(size_t size)
{
	char *p = map(size + 2 * page, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (mprotect(p, page, PROT_NONE) || mprotect(p + page + size, page, PROT_NONE))
		die("mprotect");
	return p + page;
}

// Listens on port 1234 of the loopback interface, and connects to itself if asked to.
static void open_sockets(int connected)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(1234), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&to, sizeof to) || listen(listener, 1))
		die("listen");
	if (connected && connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to))
		die("connect");
	if (connected && accept(listener, NULL, NULL) < 0)
		die("accept");
}

static void *allocate(struct area *a, size_t size)
{
	if (is(a, "listening") || is(a, "connected"))
		open_sockets(is(a, "connected"));
	int private = MAP_PRIVATE | MAP_ANONYMOUS;
	if (is(a, "shared"))
		return map(size, MAP_SHARED | MAP_ANONYMOUS, -1);
	if (is(a, "shm"))
		return map_file(shm_open("/workload", O_CREAT | O_RDWR, 0600), size, MAP_SHARED);
	if (is(a, "memfd"))
		return map_file(memfd_create("workload", 0), size, MAP_SHARED);
	if (is(a, "file"))
		return map_file(open("/workload.data", O_CREAT | O_RDWR, 0600), size, MAP_PRIVATE);
	if (is(a, "guard"))
		return map_guarded(size);
	if (is(a, "exec")) { // as a just-in-time compiler has it
		void *p = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, private, -1, 0);
		if (p == MAP_FAILED)
			die("mmap");
		return p;
	}
	void *p = map(size, private, -1);
	if (is(a, "locked") && mlock(p, size))
		die("mlock");
	if (is(a, "huge") && madvise(p, size, MADV_HUGEPAGE))
		die("madvise");
	return p;
}

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// Looks at the clock only, so that it sees for how long it was frozen. A line has the longest
// gap since the line before.
static void *look_at_clock(void *argument)
{
	struct area *a = argument;
	for (long round = 1;; round++) {
		long gap = 0;
		for (long i = 0, last = now(); i < 100; i++) {
			usleep(1000);
			long t = now();
			if (t - last > gap)
				gap = t - last;
			last = t;
		}
		printf("ok %s %ld %ld\n", a->name, round, gap);
		fflush(stdout);
	}
	return NULL;
}

static void *go_round(void *argument)
{
	struct area *a = argument;
	long last = now(), gap = 0;
	for (long round = 1;; round++) {
		for (long n = 0; n < a->pages; n++) {
			check(a, n);
			if (n % 16 == round % 16) { // a sixteenth of the pages is written in each round
				a->sequence[n]++;
				fill(a, n);
			}
			if (n % batch == 0) {
				usleep(1000);
				long t = now();
				if (t - last > gap)
					gap = t - last;
				last = t;
			}
		}
		printf("ok %s %ld %ld\n", a->name, round, gap);
		fflush(stdout);
		if (a->pages < 64 * batch)
			usleep(20000);
	}
	return NULL;
}

static void prepare(struct area *a, const char *text)
{
	int mib;
	if (sscanf(text, "%31[^=]=%31[^:]:%d", a->name, a->kind, &mib) != 3) {
		fprintf(stderr, "%s is not NAME=KIND:MIB\n", text);
		exit(1);
	}
	size_t size = (size_t)mib << 20;
	a->pages = (long)(size / page);
	a->memory = is(a, "stack") ? NULL : allocate(a, size);
	int shared = is(a, "shared") || is(a, "shm") || is(a, "memfd");
	a->sequence = map(sizeof(uint32_t) * (size_t)a->pages, (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1);
	for (long n = 0; a->memory && n < a->pages; n++)
		fill(a, n);
}

static void *on_stack(void *argument)
{
	struct area *a = argument;
	uint64_t memory[a->pages * words];
	a->memory = memory;
	for (long n = 0; n < a->pages; n++)
		fill(a, n);
	return go_round(a);
}

// A child shares the pages of all areas with its parent until one of them writes.
static void start_child(struct area *a)
{
	pid_t child = fork();
	if (child < 0)
		die("fork");
	if (child > 0)
		return;
	prctl(PR_SET_PDEATHSIG, 9);
	strcat(a->name, "-child");
	go_round(a);
}

static void start(struct area *a)
{
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, (size_t)(a->pages + 64) * page + (1 << 20));
	pthread_t thread;
	void *(*run)(void *) = is(a, "stack") ? on_stack : is(a, "idle") ? look_at_clock : go_round;
	if (pthread_create(&thread, &attributes, run, a))
		die("pthread_create");
}

int main(int argc, char **argv)
{
	struct area *areas = calloc((size_t)argc, sizeof *areas);
	for (int i = 1; i < argc; i++)
		prepare(&areas[i], argv[i]);
	for (int i = 1; i < argc; i++)
		if (is(&areas[i], "fork"))
			start_child(&areas[i]);
	for (int i = 1; i < argc; i++)
		start(&areas[i]);
	for (;;) {
		int status;
		if (wait(&status) > 0)
			exit(3); // a child has found something, or died
		sleep(1);
	}
}
