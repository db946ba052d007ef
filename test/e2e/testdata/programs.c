// Programs that check themselves, for tests of restores.
//
//	programs KIND [MIB]
//
// Each kind uses one thing that the kernel keeps for a process. It goes round: it checks
// that the thing is as the program has left it, as far as the program itself remembers,
// and changes it. It does the same with its own memory. Each line of output is one round:
//
//	ok KIND ROUND
//	wrong KIND ROUND WHAT
//
// The first thing that is wrong ends the program.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static const char *kind;
static long round_; // of the program

static void wrong(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("wrong %s %ld ", kind, round_);
	vprintf(format, args);
	printf(" (%s)\n", strerror(errno));
	fflush(stdout);
	_exit(2);
}

// want ends the program if something is not so.
#define want(condition) do { if (!(condition)) wrong("line %d: %s", __LINE__, #condition); } while (0)

// The memory of the program: each word depends on its place and on how often it was written.

static uint64_t *memory;
static size_t words;
static uint64_t written;

static uint64_t word(size_t i, uint64_t times)
{
	uint64_t x = (uint64_t)i * 0x9e3779b97f4a7c15u + times * 0xd1342543de82ef95u;
	return x ^ x >> 29;
}

static void set_memory(void)
{
	for (size_t i = 0; i < words; i++)
		memory[i] = word(i, written);
}

static void check_memory(void)
{
	for (size_t i = 0; i < words; i++)
		if (memory[i] != word(i, written))
			wrong("word %zu of the memory", i);
	if (words < 1 << 20 || round_ % 16 == 0) {
		written++;
		set_memory();
	}
}

static void nothing(void) {}

// Threads: each of them counts, in step with the others.

enum { threads = 4 };
static long counts[threads];
static pthread_barrier_t barrier;

static void *count(void *argument)
{
	long mine = 0;
	for (;;) {
		pthread_barrier_wait(&barrier);
		counts[(long)argument] = ++mine;
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void start_threads(void)
{
	want(pthread_barrier_init(&barrier, NULL, threads + 1) == 0);
	for (long i = 0; i < threads; i++) {
		pthread_t thread;
		want(pthread_create(&thread, NULL, count, (void *)i) == 0);
	}
}

static void check_threads(void)
{
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < threads; i++)
		want(counts[i] == round_);
}

// Channels: a child answers through them, and an earlier message always waits in them.

static int to_child[2], from_child[2];
static uint64_t child_seen;

static void start_child(void (*run)(void))
{
	pid_t child = fork();
	want(child >= 0);
	if (child > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		run();
}

static void answer(void)
{
	uint64_t message;
	want(read(to_child[0], &message, sizeof message) == sizeof message);
	want(message == ++child_seen);
	message = message * 2 + 1;
	want(write(from_child[1], &message, sizeof message) == sizeof message);
}

static void send_round(long n)
{
	uint64_t message = (uint64_t)n;
	want(write(to_child[1], &message, sizeof message) == sizeof message);
}

static void start_pipes(void)
{
	want(pipe(to_child) == 0 && pipe(from_child) == 0);
	start_child(answer);
	send_round(1);
}

static void start_socketpair(void)
{
	want(socketpair(AF_UNIX, SOCK_STREAM, 0, to_child) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, from_child) == 0);
	start_child(answer);
	send_round(1);
}

static void check_channels(void)
{
	uint64_t message;
	send_round(round_ + 1); // Its answer is read in the next round.
	want(read(from_child[0], &message, sizeof message) == sizeof message);
	want(message == (uint64_t)round_ * 2 + 1);
}

// Files: their contents, and the descriptors with their offsets and flags.

static int appended, sought, reader;
static const char *name;

static void open_files(const char *as)
{
	name = as;
	appended = open(name, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0640);
	sought = open(name, O_RDWR);
	reader = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	want(appended >= 0 && sought >= 0 && reader >= 0);
}

static void start_files(void) { open_files("/programs.data"); }

static void start_deleted(void)
{
	open_files("/programs.deleted");
	want(unlink("/programs.deleted") == 0);
}

static void check_files(void)
{
	uint64_t record = (uint64_t)round_, found;
	want(write(appended, &record, sizeof record) == sizeof record);
	want(lseek(reader, 0, SEEK_CUR) == (round_ - 1) * 8);
	want(read(reader, &found, sizeof found) == sizeof found && found == record);
	want((fcntl(reader, F_GETFL) & O_NONBLOCK) && (fcntl(reader, F_GETFD) & FD_CLOEXEC));
	want(fcntl(appended, F_GETFL) & O_APPEND);
	for (long n = 1; n <= round_; n += 1 + round_ / 64)
		want(pread(sought, &found, sizeof found, (n - 1) * 8) == sizeof found && found == (uint64_t)n);
	struct stat now;
	want(fstat(appended, &now) == 0 && now.st_size == round_ * 8 && (now.st_mode & 0777) == 0640);
	if (now.st_nlink == 0)
		return;
	int again = open(name, O_RDONLY);
	want(again >= 0 && pread(again, &found, sizeof found, (round_ - 1) * 8) == sizeof found && found == record);
	close(again);
}

// Locks of all three kinds: a child cannot get them.

static int locked;

static int lock(int fd, int command)
{
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	return fcntl(fd, command, &all);
}

static void start_locks(void)
{
	want(pipe(to_child) == 0 && pipe(from_child) == 0);
	const char *names[] = {"/lock.flock", "/lock.posix"};
	for (int i = 0; i < 2; i++) {
		locked = open(names[i], O_CREAT | O_RDWR, 0600);
		want(locked >= 0);
		want(i == 0 ? flock(locked, LOCK_EX) == 0 : lock(locked, F_SETLK) == 0);
	}
}

static void try_locks(void)
{
	uint64_t message;
	want(read(to_child[0], &message, sizeof message) == sizeof message);
	int fd = open("/lock.flock", O_RDWR);
	want(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	close(fd);
	fd = open("/lock.posix", O_RDWR);
	want(fd >= 0 && lock(fd, F_SETLK) < 0 && (errno == EAGAIN || errno == EACCES));
	close(fd);
	want(write(from_child[1], &message, sizeof message) == sizeof message);
}

static void check_locks(void)
{
	if (round_ == 1)
		start_child(try_locks);
	uint64_t message = 0;
	send_round(round_);
	want(read(from_child[0], &message, sizeof message) == sizeof message && message == (uint64_t)round_);
}

// A listener, which tells whoever connects what round it is.

static int listener;

// Servers reuse the address: connections of the program that had it before linger.
static void listen_on(uint32_t address, uint16_t port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(address)}};
	int yes = 1;
	listener = socket(AF_INET, SOCK_STREAM, 0);
	want(listener >= 0 && setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
	want(bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 8) == 0);
}

static void start_listening(void)
{
	listen_on(INADDR_ANY, 7001);
	want(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
}

static void check_listening(void)
{
	struct sockaddr_in at;
	socklen_t size = sizeof at;
	want(getsockname(listener, (struct sockaddr *)&at, &size) == 0 && ntohs(at.sin_port) == 7001);
	for (int peer; (peer = accept(listener, NULL, NULL)) >= 0; close(peer))
		dprintf(peer, "%ld\n", round_);
	want(errno == EAGAIN);
}

// A TCP connection of the program to itself, which the restore closes. It is right if it
// works, and if it was closed once.

static int ours, theirs, closed;

static void start_connected(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7002), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	listen_on(INADDR_LOOPBACK, 7002);
	ours = socket(AF_INET, SOCK_STREAM, 0);
	want(connect(ours, (struct sockaddr *)&to, sizeof to) == 0);
	theirs = accept(listener, NULL, NULL);
	want(theirs >= 0);
}

static void check_connected(void)
{
	char c = (char)round_, got;
	if (!closed && send(ours, &c, 1, MSG_NOSIGNAL) == 1 && read(theirs, &got, 1) == 1) {
		want(got == c);
		return;
	}
	if (!closed)
		kind = "closed"; // The test looks for it.
	closed = 1;
	want(send(ours, &c, 1, MSG_NOSIGNAL) < 0 && send(theirs, &c, 1, MSG_NOSIGNAL) < 0);
}

// Timers of all kinds tick.

static volatile sig_atomic_t alarms, ticks;
static int once_fd, timer_fd;
static timer_t timer;

static void on_alarm(int signal) { signal == SIGALRM ? alarms++ : ticks++; }

static void arm_timer(void)
{
	struct itimerspec once = {.it_value = {0, 20000000}};
	want(timerfd_settime(once_fd, 0, &once, NULL) == 0);
}

static void start_timers(void)
{
	struct itimerval interval = {{0, 20000}, {0, 20000}};
	struct itimerspec finer = {{0, 20000000}, {0, 20000000}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	signal(SIGALRM, on_alarm);
	signal(SIGUSR1, on_alarm);
	want(setitimer(ITIMER_REAL, &interval, NULL) == 0);
	want(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &finer, NULL) == 0);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, 0);
	once_fd = timerfd_create(CLOCK_MONOTONIC, 0);
	want(timer_fd >= 0 && timerfd_settime(timer_fd, 0, &finer, NULL) == 0);
	want(once_fd >= 0);
	arm_timer();
}

static uint64_t wait_for(int timer)
{
	uint64_t expired;
	ssize_t n;
	while ((n = read(timer, &expired, sizeof expired)) < 0 && errno == EINTR)
		;
	want(n == sizeof expired && expired > 0);
	return expired;
}

static void check_timers(void)
{
	int alarms_before = alarms, ticks_before = ticks;
	wait_for(timer_fd);
	want(wait_for(once_fd) == 1);
	arm_timer();
	for (int i = 0; i < 3000 && (alarms == alarms_before || ticks == ticks_before); i++)
		usleep(10000);
	want(alarms > alarms_before && ticks > ticks_before);
}

// epoll with an eventfd and a signalfd in it, a signal that waits, and a handler.

static int epoll, event_fd, signal_fd;

static void start_events(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	want(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && raise(SIGUSR2) == 0);
	sigdelset(&set, SIGUSR2);
	epoll = epoll_create1(0);
	event_fd = eventfd(0, EFD_NONBLOCK);
	signal_fd = signalfd(-1, &set, SFD_NONBLOCK);
	want(epoll >= 0 && event_fd >= 0 && signal_fd >= 0);
	for (int i = 0; i < 2; i++) {
		struct epoll_event e = {.events = EPOLLIN, .data.u64 = 40 + (uint64_t)i};
		want(epoll_ctl(epoll, EPOLL_CTL_ADD, i ? signal_fd : event_fd, &e) == 0);
	}
}

static void check_events(void)
{
	uint64_t value = (uint64_t)round_;
	struct epoll_event e;
	struct signalfd_siginfo info;
	want(epoll_wait(epoll, &e, 1, 0) == 0);
	want(write(event_fd, &value, sizeof value) == sizeof value);
	want(epoll_wait(epoll, &e, 1, 1000) == 1 && e.data.u64 == 40);
	want(read(event_fd, &value, sizeof value) == sizeof value && value == (uint64_t)round_);
	want(raise(SIGUSR1) == 0);
	want(epoll_wait(epoll, &e, 1, 1000) == 1 && e.data.u64 == 41);
	want(read(signal_fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1);
	sigset_t pending;
	want(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR2) && !sigismember(&pending, SIGUSR1));
}

// Memory that a child shares: anonymous, a memfd, POSIX shared memory or that of System V.

static volatile uint64_t *shared[2];

static void follow(void)
{
	uint64_t message;
	want(read(to_child[0], &message, sizeof message) == sizeof message);
	for (int i = 0; i < 2; i++) {
		want(shared[i][0] == message);
		shared[i][1] = message * 3;
	}
	want(write(from_child[1], &message, sizeof message) == sizeof message);
}

static void start_shared(int fd)
{
	want(pipe(to_child) == 0 && pipe(from_child) == 0);
	want(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	shared[0] = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared[1] = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	want(shared[0] != MAP_FAILED && shared[1] != MAP_FAILED);
	start_child(follow);
}

static void start_memfd(void) { start_shared(memfd_create("programs", 0)); }

static void start_shm(void) { start_shared(shm_open("/programs", O_CREAT | O_RDWR, 0600)); }

static void start_sysv(void)
{
	start_memfd();
	int id = shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600);
	want(id >= 0 && shmat(id, NULL, 0) != (void *)-1);
}

static void check_shared(void)
{
	uint64_t message = 0;
	for (int i = 0; i < 2; i++) {
		want(shared[i][1] == (uint64_t)(round_ - 1) * 3);
		shared[i][0] = (uint64_t)round_;
	}
	send_round(round_);
	want(read(from_child[0], &message, sizeof message) == sizeof message && message == (uint64_t)round_);
}

// A file system that the container has mounted itself.

static void start_tmpfs(void)
{
	mkdir("/mounted", 0755);
	want(mount("tmpfs", "/mounted", "tmpfs", 0, "size=16m") == 0);
	open_files("/mounted/data");
}

static const struct {
	const char *kind;
	void (*start)(void), (*check)(void);
} programs[] = {
	{"memory", nothing, nothing},
	{"threads", start_threads, check_threads},
	{"pipes", start_pipes, check_channels},
	{"socketpair", start_socketpair, check_channels},
	{"files", start_files, check_files},
	{"deleted", start_deleted, check_files},
	{"locks", start_locks, check_locks},
	{"listening", start_listening, check_listening},
	{"connected", start_connected, check_connected},
	{"timers", start_timers, check_timers},
	{"events", start_events, check_events},
	{"shared", start_memfd, check_shared},
	{"shm", start_shm, check_shared},
	{"sysv", start_sysv, check_shared},
	{"tmpfs", start_tmpfs, check_files},
};

int main(int argc, char **argv)
{
	kind = argc > 1 ? argv[1] : "";
	size_t program = 0, all = sizeof programs / sizeof *programs;
	while (program < all && strcmp(programs[program].kind, kind) != 0)
		program++;
	want(program < all);
	size_t mib = argc > 2 ? (size_t)atoi(argv[2]) : 1;
	words = (mib << 20) / sizeof *memory;
	memory = malloc(mib << 20);
	want(memory != NULL);
	set_memory();
	programs[program].start();
	for (;;) {
		round_++;
		check_memory();
		programs[program].check();
		printf("ok %s %ld\n", kind, round_);
		fflush(stdout);
		usleep(50000);
	}
}
