// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory that comes when the test lets it, by userfaultfd, and who is stuck there
 * with their result: a WAIT, or an epoll_wait that keeps what a close takes.
 */
#include "lib.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void slow_page_new(struct slow_page *slow)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	char *mem = two_pages();

	slow->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (slow->uffd < 0)
		test_skip("no userfaultfd: %s", strerror(errno));
	SYS(ioctl(slow->uffd, UFFDIO_API, &api));
	slow->at = mem + PAGE;
	reg.range.start = (uintptr_t)slow->at;
	reg.range.len = PAGE;
	SYS(ioctl(slow->uffd, UFFDIO_REGISTER, &reg));
}

void slow_page_wait(const struct slow_page *slow)
{
	struct uffd_msg msg;

	CHECK_EQ(SYS(read(slow->uffd, &msg, sizeof(msg))), sizeof(msg));
	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	CHECK_EQ(msg.arg.pagefault.address & ~(PAGE - 1), (uintptr_t)slow->at);
}

void slow_page_come(const struct slow_page *slow)
{
	struct uffdio_zeropage zero = {
		.range = { .start = (uintptr_t)slow->at, .len = PAGE },
	};

	SYS(ioctl(slow->uffd, UFFDIO_ZEROPAGE, &zero));
}

void slow_page_fail(const struct slow_page *slow)
{
	struct uffdio_range range = {
		.start = (uintptr_t)slow->at, .len = PAGE,
	};

	SYS(mprotect(slow->at, PAGE, PROT_NONE));
	SYS(ioctl(slow->uffd, UFFDIO_WAKE, &range));
}

static void *keep(void *arg)
{
	struct keeper *k = arg;

	CHECK_EQ(SYS(epoll_wait(k->e, (struct epoll_event *)k->page.at, 1, -1)),
		 1);
	return NULL;
}

void keeper_start(struct keeper *k, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };

	slow_page_new(&k->page);
	k->e = (int)SYS(epoll_create1(EPOLL_CLOEXEC));
	SYS(epoll_ctl(k->e, EPOLL_CTL_ADD, fd, &ev));
	k->thread = thread_start(keep, k);
	slow_page_wait(&k->page);
}

void keeper_end(struct keeper *k)
{
	slow_page_come(&k->page);
	thread_join(k->thread);
	close(k->e);
}

void slow_wait_prepare(struct slow_wait *s, uint32_t max)
{
	slow_page_new(&s->page);
	s->head = (struct kevent_wait *)
		  ((struct kevent_event *)s->page.at - s->before) - 1;
	*s->head = (struct kevent_wait){
		.min = 1, .max = max, .timeout = FOREVER,
		.clock = CLOCK_MONOTONIC,
	};
}

void *slow_wait_run(void *arg)
{
	struct slow_wait *s = arg;

	s->ret = ioctl(s->q, KEVENT_IOC_WAIT(s->head->max), s->head);
	if (s->ret < 0)
		s->ret = -errno;
	return NULL;
}

struct kevent_event *slow_wait_events(const struct slow_wait *s)
{
	return (struct kevent_event *)(s->head + 1);
}
