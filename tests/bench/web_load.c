// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Clients of a web server: web_load PORT PID CLIENTS REQUESTS PATH FILE
 *
 * So many connections are made and kept.  Each asks for PATH, again as soon as
 * it has the reply, one request at a time; the first reply of each is compared
 * with FILE, of the others status and length are looked at.  Then REQUESTS by
 * each are counted, and a line of JSON says what all of them took, in ns, which
 * are instructions where those are counted: altogether, by the server, which is
 * process PID, of that outside of the kernel (to a tick), by this program, and
 * what nobody needed.
 */
#include "../kernel/lib.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH	64
#define HEAD	1024

struct client {
	int fd;
	unsigned int to_do;
	bool in_body;
	uint64_t left;
	size_t length;
	char head[HEAD];
};

static char request_text[1024];
static size_t request_length;
static const char *body;
static uint64_t body_length;
static char buffer[256 * 1024];

static void ask(struct client *c)
{
	ssize_t n = SYS(send(c->fd, request_text, request_length, MSG_NOSIGNAL));

	/* it is all that is on its way */
	CHECK_EQ(n, request_length);
	c->in_body = false;
	c->length = 0;
}

/* The head is whole: what it says. */
static void check_head(struct client *c)
{
	static const char name[] = "\r\nContent-Length: ";
	const char *length = strstr(c->head, name);

	if (strncmp(c->head, "HTTP/1.1 200 ", 13) || !length)
		FAIL("reply: %s", c->head);
	c->left = strtoull(length + strlen(name), NULL, 10);
	CHECK_EQ(c->left, body_length);
	c->in_body = true;
}

/* Of @n bytes what belongs to the head is taken: how many those are. */
static size_t take_head(struct client *c, const char *data, size_t n)
{
	size_t before = c->length, room = HEAD - 1 - c->length;
	char *end;

	if (n > room)
		n = room;
	memcpy(c->head + before, data, n);
	c->length += n;
	c->head[c->length] = '\0';
	end = strstr(c->head, "\r\n\r\n");
	if (!end) {
		CHECK(c->length < HEAD - 1);
		return n;
	}
	end[2] = '\0';
	check_head(c);
	return (size_t)(end + 4 - c->head) - before;
}

/* True where the reply is whole. */
static bool receive(struct client *c, bool compare)
{
	ssize_t n = recv(c->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	size_t used = 0;

	if (n < 0 && errno == EAGAIN)
		return false;
	SYS(n);
	if (!n)
		FAIL("the server has closed a connection");
	if (!c->in_body)
		used = take_head(c, buffer, (size_t)n);
	if (!c->in_body)
		return false;
	n -= (ssize_t)used;
	CHECK((uint64_t)n <= c->left);
	if (compare && memcmp(buffer + used, body + body_length - c->left,
			      (size_t)n))
		FAIL("a body is not what is in the file");
	c->left -= (uint64_t)n;
	return !c->left;
}

/* Each client asks so many times. */
static void run(int epoll, struct client *clients, unsigned int nr,
		unsigned int requests, bool compare)
{
	struct epoll_event ev[BATCH];
	unsigned int i, running = nr;

	for (i = 0; i < nr; i++) {
		clients[i].to_do = requests;
		ask(&clients[i]);
	}
	while (running) {
		int n = (int)SYS(epoll_wait(epoll, ev, BATCH, 60000)), k;

		if (!n)
			FAIL("%u clients wait for a reply, and none comes",
			     running);
		for (k = 0; k < n; k++) {
			struct client *c = ev[k].data.ptr;

			if (!receive(c, compare))
				continue;
			if (--c->to_do)
				ask(c);
			else
				running--;
		}
	}
}

static uint64_t clock_of(clockid_t clock)
{
	struct timespec ts;

	SYS(clock_gettime(clock, &ts));
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* For how long nobody had anything to do, to 10 ms. */
static uint64_t idle(void)
{
	FILE *file = fopen("/proc/uptime", "r");
	double up, rest;

	CHECK(file && fscanf(file, "%lf %lf", &up, &rest) == 2);
	fclose(file);
	return (uint64_t)(rest * 1e9);
}

/* What process @pid has needed outside of the kernel, to a tick. */
static uint64_t user_time(pid_t pid)
{
	unsigned long ticks = 0;
	char path[64], text[1024], *at;
	FILE *file;
	int i;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	CHECK(file && fgets(text, sizeof(text), file));
	fclose(file);
	/* the 14th field, and the second one may have blanks in it */
	at = strrchr(text, ')');
	for (i = 2; i < 14; i++) {
		CHECK(at);
		at = strchr(at + 1, ' ');
	}
	CHECK(at && sscanf(at, " %lu", &ticks) == 1);
	return ticks * (NSEC_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

static void read_body(const char *path)
{
	int fd = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
	struct stat st;

	SYS(fstat(fd, &st));
	body_length = (uint64_t)st.st_size;
	body = mmap(NULL, body_length, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(body != MAP_FAILED);
	close(fd);
}

int main(int argc, char **argv)
{
	uint64_t begin, whole, server, user, client, rest;
	unsigned int i, nr, requests;
	struct client *clients;
	clockid_t clock;
	pid_t pid;
	int epoll;

	if (argc != 7) {
		fprintf(stderr, "usage: web_load PORT PID CLIENTS REQUESTS PATH FILE\n");
		return 2;
	}
	nr = (unsigned int)strtoul(argv[3], NULL, 10);
	requests = (unsigned int)strtoul(argv[4], NULL, 10);
	CHECK(nr && requests);
	read_body(argv[6]);
	request_length = (size_t)snprintf(request_text, sizeof(request_text),
		"GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: web_load\r\n"
		"Accept: */*\r\n\r\n", argv[5]);
	CHECK(request_length < sizeof(request_text));
	raise_nofile(nr + 64);
	clients = calloc(nr, sizeof(*clients));
	CHECK(clients);
	epoll = (int)SYS(epoll_create1(EPOLL_CLOEXEC));
	for (i = 0; i < nr; i++) {
		struct epoll_event ev = { .events = EPOLLIN,
					  .data.ptr = &clients[i] };

		clients[i].fd = tcp_connect((uint16_t)strtoul(argv[1], NULL,
							      10));
		SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &ev));
	}
	pid = (pid_t)strtol(argv[2], NULL, 10);
	CHECK_EQ(clock_getcpuclockid(pid, &clock), 0);
	run(epoll, clients, nr, 1, true);

	rest = idle();
	user = user_time(pid);
	server = clock_of(clock);
	client = clock_of(CLOCK_PROCESS_CPUTIME_ID);
	begin = now_ns();
	run(epoll, clients, nr, requests, false);
	whole = now_ns() - begin;
	client = clock_of(CLOCK_PROCESS_CPUTIME_ID) - client;
	server = clock_of(clock) - server;
	user = user_time(pid) - user;
	rest = idle() - rest;
	printf("{\"whole\": %llu, \"server\": %llu, \"user\": %llu, \"client\": %llu, \"idle\": %llu}\n",
	       (unsigned long long)whole, (unsigned long long)server,
	       (unsigned long long)user, (unsigned long long)client,
	       (unsigned long long)rest);
	return 0;
}
