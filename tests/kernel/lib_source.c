// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the C tests watch: sockets, ptys, eventfds, and descriptors on their way
 * from one process to another.
 */
#include "lib.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

void loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo" };
	int fd = (int)SYS(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	SYS(ioctl(fd, SIOCGIFFLAGS, &ifr));
	if (!(ifr.ifr_flags & IFF_UP)) {
		ifr.ifr_flags |= IFF_UP;
		SYS(ioctl(fd, SIOCSIFFLAGS, &ifr));
	}
	close(fd);
}

int tcp_listen(uint16_t *port)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int fd;

	loopback_up();
	fd = (int)SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	SYS(bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	SYS(listen(fd, 64));
	SYS(getsockname(fd, (struct sockaddr *)&addr, &len));
	*port = ntohs(addr.sin_port);
	return fd;
}

int tcp_connect(uint16_t port)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = (int)SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

	SYS(connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	return fd;
}

void tcp_pair(int fd[2])
{
	uint16_t port;
	int listener = tcp_listen(&port);

	fd[0] = tcp_connect(port);
	fd[1] = (int)SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	close(listener);
}

void narrow_tcp_pair(int fd[2])
{
	int small = NARROW;

	tcp_pair(fd);
	SYS(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	SYS(setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
}

void unix_pair(int fd[2])
{
	SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
		       fd));
}

void pty_pair(int *master, int *slave)
{
	struct termios raw;
	char name[64];

	*master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (*master < 0)
		test_skip("no pty: %s", strerror(errno));
	SYS(grantpt(*master));
	SYS(unlockpt(*master));
	CHECK_EQ(ptsname_r(*master, name, sizeof(name)), 0);
	*slave = (int)SYS(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC |
			       O_NONBLOCK));
	SYS(tcgetattr(*slave, &raw));
	cfmakeraw(&raw);
	SYS(tcsetattr(*slave, TCSANOW, &raw));
}

int eventfd_new(unsigned int value)
{
	return (int)SYS(eventfd(value, EFD_CLOEXEC | EFD_NONBLOCK));
}

void eventfd_write_one(int fd)
{
	uint64_t one = 1;

	CHECK_EQ(SYS(write(fd, &one, sizeof(one))), sizeof(one));
}

int try_send_fd(int sock, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = "";
	char byte = 'f';
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : -errno;
}

void send_fd(int sock, int fd)
{
	CHECK_EQ(try_send_fd(sock, fd), 0);
}

int recv_fd(int sock)
{
	char control[CMSG_SPACE(sizeof(int))];
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	int fd;

	CHECK_EQ(SYS(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC)), 1);
	cmsg = CMSG_FIRSTHDR(&msg);
	CHECK(cmsg && cmsg->cmsg_type == SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

void raise_nofile(unsigned int want)
{
	struct rlimit lim;

	SYS(getrlimit(RLIMIT_NOFILE, &lim));
	if (lim.rlim_cur >= want)
		return;
	if (lim.rlim_max < want)
		lim.rlim_max = want;
	lim.rlim_cur = want;
	if (setrlimit(RLIMIT_NOFILE, &lim))
		test_skip("no %u descriptors: %s", want, strerror(errno));
}

void need_root(void)
{
	if (geteuid())
		test_skip("needs root");
}

char *two_pages(void)
{
	char *mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(mem != MAP_FAILED);
	return mem;
}

void *before_nothing(size_t size)
{
	char *mem = two_pages();

	SYS(munmap(mem + PAGE, PAGE));
	return mem + PAGE - size;
}
