// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Calls on queues: the ioctls put together field by field, so that what is bent
 * is one field of a call that otherwise makes sense, and raw ones.
 *
 * Where in memory an argument is (low four bits of the letter w, the others are
 * "far"):
 *	0	right before memory that is not there
 *	1	at the beginning of a page, with room behind it
 *	2	nowhere: NULL
 *	3	where the kernel is
 *	4	across the end of what a program can address
 *	5	in memory that cannot be written
 *	6	"far" bytes of it are there, the rest is not
 *	7	where the arguments of the other threads are
 *	8	not aligned
 *	9	"far" bytes of it can be written, the rest only be read
 */
#include "fuzz.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define AREA	(6 * PAGE)
#define HALF	(AREA / 2)

static char *shared;	/* place 7 */

static char *map_area(int memfd, int prot)
{
	char *mem = mmap(NULL, AREA + PAGE, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(mem != MAP_FAILED);
	CHECK(mmap(mem, AREA, prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
		   memfd, 0) == mem);
	return mem;
}

void buffers_make(struct worker *w)
{
	int memfd = (int)SYS(memfd_create("fuzz", MFD_CLOEXEC));

	SYS(ftruncate(memfd, AREA));
	w->rw = map_area(memfd, PROT_READ | PROT_WRITE);
	w->ro = map_area(memfd, PROT_READ);
	w->mixed = map_area(memfd, PROT_READ | PROT_WRITE);
	SYS(mprotect(w->mixed + HALF, HALF, PROT_READ));
	w->stage = shared_memory(AREA);
	if (!shared)
		shared = shared_memory(AREA);
	close(memfd);
}

char *buffers_shared(void)
{
	return shared;
}

/* Puts the staged argument of @size bytes where @where says. */
static char *put(struct worker *w, uint64_t where, size_t size)
{
	uint64_t far = where >> 4;
	size_t at, there = far % (size + 1);
	char *base = w->rw;

	switch (where & 15) {
	case 2:
		return NULL;
	case 3:
		return (char *)0xffff888000000000ULL + far;
	case 4:
		return (char *)(1ULL << 47) - PAGE - far % PAGE;
	case 5:
		base = w->ro;
		at = AREA - size;
		break;
	case 6:
		at = AREA - there;
		break;
	case 7:
		memcpy(shared, w->stage, size);
		return shared;
	case 8:
		at = 1 + far % 7;
		break;
	case 9:
		base = w->mixed;
		at = HALF > there ? HALF - there : 0;
		break;
	case 1:
		at = 0;
		break;
	default:
		at = AREA - size;
	}
	memcpy(w->rw + at, w->stage, size < AREA - at ? size : AREA - at);
	return base + at;
}

/* Where what came back can be read, or NULL. */
static const void *answer(uint64_t where, const void *arg)
{
	return (where & 15) <= 1 || (where & 15) == 8 ? arg : NULL;
}

static long call_ioctl(struct worker *w, uint64_t queue, unsigned int nr,
		       size_t size, uint64_t bend, uint64_t where, char **arg)
{
	size_t encoded = (size + bend) & KEVENT_MAX_SIZE;
	unsigned int dir = _IOC_READ | _IOC_WRITE;

	if (nr == KEVENT_IOC_NR_INFO)
		dir = _IOC_READ;
	*arg = put(w, where, encoded);
	return ioctl(pool_fd(queue), _IOC(dir, KEVENT_IOC_MAGIC, nr, encoded),
		     *arg);
}

static uint64_t clock_now(uint64_t clock)
{
	struct timespec ts;

	if (clock_gettime((clockid_t)clock, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static struct kevent_request get_request(const struct worker *w,
					 const uint64_t *arg)
{
	struct kevent_request req = {
		.type = (uint16_t)arg[0], .ident = arg[1], .cookie = arg[2],
		.op = (uint16_t)arg[3], .flags = (uint32_t)arg[4],
		.events = (uint32_t)arg[5],
		.param = { arg[6], arg[7], arg[8] },
		.result = 1,
	};

	if (req.type == KEVENT_TIMER && (req.flags & KEVENT_ABSTIME) &&
	    !(req.param[0] & 1))
		req.param[0] += clock_now(req.param[2]);
	/* not of a REMOVE, which has none */
	if (req.type == KEVENT_NAIO && (req.events || req.param[1]))
		req.param[0] = memory_address(w->index, req.param[0],
					      req.param[1]);
	return req;
}

/* The requests at the end of @c, at @to; gives how many. */
static uint32_t put_requests(const struct worker *w, const struct call *c,
			     void *to)
{
	unsigned int fixed = fixed_args(&call_types[c->type]);
	struct kevent_request *req = to;
	uint32_t nr = 0;

	for (; fixed < c->nr_args; fixed += REQUEST_ARGS)
		req[nr++] = get_request(w, &c->arg[fixed]);
	return nr;
}

static void change_all(struct worker *w, const struct call *c, unsigned int nr)
{
	struct kevent_batch *batch = (void *)w->stage;
	uint32_t count = put_requests(w, c, batch + 1);
	char *arg;
	long ret;

	*batch = (struct kevent_batch){
		.count = count + (uint32_t)c->arg[3],
		.flags = (uint32_t)c->arg[4], .reserved = c->arg[5],
	};
	ret = call_ioctl(w, c->arg[0], nr,
			 sizeof(*batch) + count * sizeof(struct kevent_request),
			 c->arg[2], c->arg[1], &arg);
	/* the count may be bent, but not beyond the size */
	if (ret > KEVENT_MAX_REQUESTS)
		broken_promise("%s: %ld succeeded", call_types[c->type].name,
			       ret);
}

void run_add(struct worker *w, const struct call *c)
{
	change_all(w, c, KEVENT_IOC_NR_ADD);
}

void run_modify(struct worker *w, const struct call *c)
{
	change_all(w, c, KEVENT_IOC_NR_MODIFY);
}

void run_remove(struct worker *w, const struct call *c)
{
	change_all(w, c, KEVENT_IOC_NR_REMOVE);
}

/* What is said of the end of a transfer makes sense. */
static void check_transfers(const char *name, const char *records, uint32_t nr)
{
	struct kevent_event ev;
	uint32_t i;

	for (i = 0; i < nr; i++) {
		memcpy(&ev, records + i * sizeof(ev), sizeof(ev));
		if (ev.flags & KEVENT_EVENT_NAME)
			i += KEVENT_NAME_RECORDS(ev.data);
		if (ev.type != KEVENT_NAIO)
			continue;
		if (ev.events != KEVENT_NAIO_RECV &&
		    ev.events != KEVENT_NAIO_SEND &&
		    ev.events != KEVENT_NAIO_SENDFILE)
			broken_promise("%s: a transfer of events %#x", name,
				       ev.events);
		if (ev.flags & KEVENT_EVENT_ERROR ? !ev.count || ev.count > 4095 :
						    ev.count != 1)
			broken_promise("%s: a transfer with flags %#x, count %u",
				       name, ev.flags, ev.count);
		if (ev.events != KEVENT_NAIO_SENDFILE &&
		    ev.data > KEVENT_NAIO_MAX)
			broken_promise("%s: a transfer of %llu bytes", name,
				       (unsigned long long)ev.data);
	}
}

static void check_wait(const struct call *c, const struct kevent_wait *sent,
		       const struct kevent_wait *got, uint32_t changes, long ret)
{
	const char *name = call_types[c->type].name;
	struct kevent_wait head;

	if (ret < 0 || !got)
		return;
	/* it need not be aligned */
	memcpy(&head, got, sizeof(head));
	if (ret > head.records || head.records > sent->max)
		broken_promise("%s: %ld events in %u records of %u", name, ret,
			       head.records, sent->max);
	/* WAIT leaves it as it is */
	if (call_types[c->type].run == run_change_wait &&
	    head.changed > sent->nr_changes)
		broken_promise("%s: %u of %u changed", name, head.changed,
			       sent->nr_changes);
	check_transfers(name, (const char *)got + sizeof(head) +
			changes * sizeof(struct kevent_request), head.records);
}

static void wait_all(struct worker *w, const struct call *c, unsigned int nr)
{
	struct kevent_wait *wait = (void *)w->stage, sent;
	uint32_t changes = put_requests(w, c, wait + 1);
	uint64_t timeout = c->arg[6];
	size_t size, room;
	char *arg;
	long ret;

	if ((c->arg[8] & KEVENT_WAIT_ABSTIME) && !(timeout & 1))
		timeout += clock_now(c->arg[7]);
	sent = (struct kevent_wait){
		.nr_changes = changes + (uint32_t)c->arg[3],
		.changed = 77, .records = 77, .left = 77,
		.min = (uint32_t)c->arg[4], .max = (uint32_t)c->arg[5],
		.timeout = timeout, .clock = (uint32_t)c->arg[7],
		.flags = (uint32_t)c->arg[8], .reserved = c->arg[9],
	};
	*wait = sent;
	room = sent.max < KEVENT_MAX_RECORDS ? sent.max : KEVENT_MAX_RECORDS;
	size = sizeof(*wait) + changes * sizeof(struct kevent_request) +
	       room * sizeof(struct kevent_event);
	ret = call_ioctl(w, c->arg[0], nr, size, c->arg[2], c->arg[1], &arg);
	check_wait(c, &sent, answer(c->arg[1], arg), sent.nr_changes, ret);
}

void run_wait(struct worker *w, const struct call *c)
{
	wait_all(w, c, KEVENT_IOC_NR_WAIT);
}

void run_change_wait(struct worker *w, const struct call *c)
{
	wait_all(w, c, KEVENT_IOC_NR_CHANGE_WAIT);
}

void run_post(struct worker *w, const struct call *c)
{
	unsigned int i, fixed = fixed_args(&call_types[c->type]);
	struct kevent_batch *batch = (void *)w->stage;
	struct kevent_post *post = (void *)(batch + 1);
	uint32_t count = 0;
	char *arg;

	for (i = fixed; i < c->nr_args; i += POST_ARGS)
		post[count++] = (struct kevent_post){
			.ident = c->arg[i], .data = c->arg[i + 1],
			.flags = (uint32_t)c->arg[i + 2], .result = 1,
		};
	*batch = (struct kevent_batch){
		.count = count + (uint32_t)c->arg[3],
		.flags = (uint32_t)c->arg[4], .reserved = c->arg[5],
	};
	call_ioctl(w, c->arg[0], KEVENT_IOC_NR_POST,
		   sizeof(*batch) + count * sizeof(*post), c->arg[2], c->arg[1],
		   &arg);
}

void run_add_path(struct worker *w, const struct call *c)
{
	struct kevent_path *path = (void *)w->stage;
	const char *name = pool_path(c->arg[3]);
	char *arg;

	path->request = (struct kevent_request){};
	put_requests(w, c, path);
	strcpy((char *)(path + 1), name);
	call_ioctl(w, c->arg[0], KEVENT_IOC_NR_ADD_PATH,
		   sizeof(*path) + strlen(name) + 1, c->arg[2], c->arg[1], &arg);
}

void run_info(struct worker *w, const struct call *c)
{
	char *arg;

	call_ioctl(w, c->arg[0], KEVENT_IOC_NR_INFO, sizeof(struct kevent_info),
		   c->arg[2], c->arg[1], &arg);
}

/* Whatever else is in the pool takes ioctls that may do more than we want. */
static bool is_queue(int fd)
{
	struct stat st, device;

	return !fstat(fd, &st) && !stat(device_path(), &device) &&
	       st.st_rdev == device.st_rdev;
}

void run_ioctl(struct worker *w, const struct call *c)
{
	unsigned int fixed = fixed_args(&call_types[c->type]);
	unsigned int nr = c->nr_args - fixed, i;
	unsigned int cmd = (unsigned int)c->arg[1];
	size_t size = _IOC_SIZE(cmd);
	int fd = pool_fd(c->arg[0]);

	for (i = 0; i < size / sizeof(uint64_t) + 1; i++)
		((uint64_t *)w->stage)[i] = nr ? c->arg[fixed + i % nr] : 0;
	if (_IOC_TYPE(cmd) != KEVENT_IOC_MAGIC && !is_queue(fd))
		return;
	ioctl(fd, cmd, put(w, c->arg[2], size));
}

void run_read(struct worker *w, const struct call *c)
{
	size_t size = c->arg[1] % HALF;

	if (read(pool_fd(c->arg[0]), put(w, c->arg[2], size), size) < 0)
		return;
}

void run_poll(struct worker *w, const struct call *c)
{
	/* two at once: the second is a neighbour */
	struct pollfd pfd[2] = {
		{ .fd = pool_fd(c->arg[0]), .events = (short)c->arg[2] },
		{ .fd = pool_fd(c->arg[0] + 1), .events = (short)c->arg[3] },
	};
	struct timespec ts = { .tv_nsec = (long)(c->arg[1] % NSEC_PER_SEC) };

	(void)w;
	ppoll(pfd, c->arg[3] ? 2 : 1, &ts, NULL);
}

void run_mmap(struct worker *w, const struct call *c)
{
	char *mem = mmap(NULL, PAGE, PROT_READ | (c->arg[1] & PROT_WRITE),
			 c->arg[1] & 4 ? MAP_PRIVATE : MAP_SHARED,
			 pool_fd(c->arg[0]), 0);

	(void)w;
	if (mem != MAP_FAILED)
		munmap(mem, PAGE);
}

void run_fcntl(struct worker *w, const struct call *c)
{
	/* those that do nothing to anybody else */
	static const int commands[] = {
		F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETOWN, F_GETLEASE,
	};
	unsigned int which = (unsigned int)c->arg[1] % ARRAY_SIZE(commands);

	(void)w;
	fcntl(pool_fd(c->arg[0]), commands[which], (int)c->arg[2]);
}

void run_fdinfo(struct worker *w, const struct call *c)
{
	char path[64], text[4096];
	int fd;

	(void)w;
	snprintf(path, sizeof(path), "/proc/thread-self/fdinfo/%d",
		 pool_fd(c->arg[0]));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && read(fd, text, sizeof(text)) > 0)
		continue;
	close(fd);
}
