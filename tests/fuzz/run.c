// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Has programs run in a process of their own, and looks after each whether the
 * machine is well: the program, or else the process, has ended, no kevent is
 * left, and the kernel has not complained.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NR_RECENT	8	/* programs in the file, the last ones */
#define NOBODY		65534
/* So many programs, and the process ends and another takes its place. */
#define PROGRAMS_EACH	50
/* How often a program that takes long is interrupted, before it is killed. */
#define INTERRUPTS	20

struct run_counts run_counts;

static struct run_options options;
static struct worker workers[MAX_THREADS];
static char work_dir[128];
static int recent = -1, kmsg = -1;
static struct program *shared_program;
static int accounts[2];		/* a queue of each user that programs run as */

static int account_open(uid_t uid)
{
	int q;

	SYS(syscall(SYS_setresuid, -1, uid, -1));
	q = queue_open();
	SYS(syscall(SYS_setresuid, -1, 0, -1));
	return q;
}

void run_prepare(const struct run_options *wanted)
{
	const char *dir = getenv("TMPDIR");
	unsigned int i;

	options = *wanted;
	need_root();
	loopback_up();
	signals_prepare();
	/* those that a program leaves behind come to us */
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	/* mounts of programs are nobody else's business */
	SYS(unshare(CLONE_NEWNS));
	SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	snprintf(work_dir, sizeof(work_dir), "%.80s/kevent-fuzz",
		 dir ? dir : "/tmp");
	if (mkdir(work_dir, 0777) && errno != EEXIST)
		FAIL("%s: %s", work_dir, strerror(errno));
	files_begin(work_dir);
	shared_program = shared_memory(sizeof(*shared_program));
	for (i = 0; i < MAX_THREADS; i++) {
		workers[i].index = i;
		buffers_make(&workers[i]);
	}
	memory_begin();
	accounts[0] = account_open(0);
	accounts[1] = account_open(NOBODY);
	limits_save();
	kmsg = (int)SYS(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
	SYS(lseek(kmsg, 0, SEEK_END));
	if (options.recent)
		recent = (int)SYS(open(options.recent, O_WRONLY | O_CREAT |
				       O_TRUNC | O_CLOEXEC, 0644));
}

/* What the host finds where the machine does not survive it. */
static void write_recent(const struct program *p)
{
	static char text[MAX_TEXT];
	off_t at = (off_t)(run_counts.programs % NR_RECENT * MAX_TEXT);
	size_t used;

	if (recent < 0)
		return;
	used = (size_t)snprintf(text, sizeof(text),
				"# program %llu, seed %llu\n",
				(unsigned long long)run_counts.programs,
				(unsigned long long)options.seed);
	used += program_print(p, text + used, sizeof(text) - used);
	/* with a zero byte, behind which older text may be */
	SYS(pwrite(recent, text, used + 1, at));
}

/* The first line of the kernel's that says that something is broken. */
static bool kernel_complains(void)
{
	static const char *const words[] = {
		"WARNING:", "BUG:", "BUG ", "KASAN:", "UBSAN:", "ODEBUG:",
		"refcount_t:", "corruption", "Oops", "suspicious RCU",
		"detected stall", "blocked for more than",
	};
	char line[1024];
	ssize_t n;

	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		unsigned int i;

		line[n > 0 ? n : 0] = '\0';
		for (i = 0; n > 0 && i < ARRAY_SIZE(words); i++) {
			if (!strstr(line, words[i]))
				continue;
			fprintf(stderr, "the kernel says: %s", line);
			return true;
		}
		errno = 0;
	}
	return false;
}

/* The process that runs programs, and what we tell it by. */
static struct {
	pid_t pid;		/* 0: there is none */
	int pidfd, go, done;
	unsigned int left;	/* programs until it is to end */
} server;

static void server_start(void)
{
	int go[2], done[2];

	SYS(pipe2(go, O_CLOEXEC));
	SYS(pipe2(done, O_CLOEXEC));
	fflush(NULL);
	server.pid = (pid_t)SYS(fork());
	if (!server.pid) {
		setsid();
		close(go[1]);
		close(done[0]);
		server_main(workers, shared_program, go[0], done[1]);
	}
	close(go[0]);
	close(done[1]);
	server.go = go[1];
	server.done = done[0];
	server.left = PROGRAMS_EACH;
	server.pidfd = (int)SYS(syscall(SYS_pidfd_open, server.pid, 0));
}

/* Until it ended, no longer than @limit ns. */
static bool server_ends(uint64_t limit, int *status)
{
	uint64_t end = now_ns() + limit, now;
	struct pollfd pfd = { .fd = server.pidfd, .events = POLLIN };

	while ((now = now_ns()) < end) {
		int left = (int)((end - now) / NSEC_PER_MSEC) + 1;

		if (poll(&pfd, 1, left) > 0 &&
		    waitpid(server.pid, status, 0) == server.pid)
			return true;
	}
	return false;
}

/* What programs started and left behind. */
static bool reap_others(pid_t session)
{
	uint64_t end = now_ns() + PATIENCE;

	kill(-session, SIGKILL);
	while (waitpid(-1, NULL, WNOHANG) >= 0) {
		if (now_ns() > end)
			return false;
		usleep(100);
	}
	return true;
}

/* Pages that nobody is there for any more. */
static bool pages_lost(void)
{
	uint64_t end = now_ns() + PATIENCE;
	long long pinned;

	while (pins(&pinned) && pinned) {
		if (now_ns() > end) {
			fprintf(stderr, "%lld pages stay pinned\n", pinned);
			return true;
		}
		usleep(1000);
	}
	return false;
}

/* Whether it ended, and as it should. */
static bool server_stop(bool kill_it)
{
	int status = 0;
	bool good = true;

	if (!server.pid)
		return true;
	close(server.go);
	close(server.done);
	if (kill_it)
		kill(server.pid, SIGKILL);
	if (!server_ends(PATIENCE, &status)) {
		fprintf(stderr, "the process does not end\n");
		return false;
	}
	if (!reap_others(server.pid)) {
		fprintf(stderr, "a child of the process does not end\n");
		good = false;
	}
	if (pages_lost())
		good = false;
	if (WIFSIGNALED(status) && !(kill_it && WTERMSIG(status) == SIGKILL)) {
		fprintf(stderr, "the process died of signal %d\n",
			WTERMSIG(status));
		good = false;
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == BROKEN_PROMISE) {
		good = false;
	} else if (WIFEXITED(status) && WEXITSTATUS(status)) {
		run_counts.gave_up++;
	}
	close(server.pidfd);
	server.pid = 0;
	return good;
}

/*
 * True where the program ended in time and the process goes on.  Its first thread
 * may sleep for long, or for ever: then it is interrupted.
 */
static bool server_run(void)
{
	struct pollfd pfd = { .fd = server.done, .events = POLLIN };
	uint64_t end = now_ns() + options.limit * NSEC_PER_MSEC;
	char byte = 0;

	if (write(server.go, &byte, 1) != 1)
		return false;
	while (now_ns() < end) {
		if (poll(&pfd, 1, (int)options.limit / INTERRUPTS) > 0)
			return read(server.done, &byte, 1) == 1;
		kill(server.pid, SIGUSR1);
	}
	run_counts.late++;
	return false;
}

static bool kevents_gone(unsigned int account)
{
	uint64_t end = now_ns() + PATIENCE;
	struct kevent_info info;

	while ((info = queue_info(accounts[account])).user_kevents) {
		if (now_ns() > end) {
			fprintf(stderr, "%llu kevents are left\n",
				(unsigned long long)info.user_kevents);
			return false;
		}
		usleep(100);
	}
	return true;
}

/* Transfers end before their kevents are gone, and let go of their pages. */
static bool pages_unpinned(void)
{
	uint64_t end = now_ns() + PATIENCE;
	unsigned long pinned;

	if (!server.pid)
		return true;
	while ((pinned = pinned_by(server.pid))) {
		if (now_ns() > end) {
			fprintf(stderr, "%lu pages are pinned\n", pinned);
			return false;
		}
		usleep(100);
	}
	return true;
}

bool run_program(const struct program *p)
{
	bool well = true;

	write_recent(p);
	run_counts.programs++;
	cover_reset();
	*shared_program = *p;
	if (!server.pid)
		server_start();
	if (!server_run())
		well = server_stop(true);
	else if (!--server.left)
		well = server_stop(false);
	limits_restore(p);
	well = well && kevents_gone(0) && kevents_gone(1);
	if (memory_is_used(p))
		well = well && pages_unpinned();
	return !kernel_complains() && well;
}

bool run_end(void)
{
	bool well = server_stop(false);

	if (umount2(work_dir, MNT_DETACH))
		fprintf(stderr, "%s: %s\n", work_dir, strerror(errno));
	return well;
}
