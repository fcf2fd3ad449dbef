// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * io_uring without its library; see ring.h.
 */
#include "ring.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *map(int fd, size_t size, off_t offset)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_POPULATE, fd, offset);

	CHECK(mem != MAP_FAILED);
	return mem;
}

static unsigned int *word(struct ring *ring, uint32_t offset)
{
	return (unsigned int *)((char *)ring->words + offset);
}

bool ring_open(struct ring *ring, unsigned int entries, unsigned int flags)
{
	struct io_uring_params params = {
		.flags = flags, .cq_entries = 4 * entries,
	};

	memset(ring, 0, sizeof(*ring));
	ring->flags = flags;
	ring->fd = (int)syscall(SYS_io_uring_setup, entries, &params);
	if (ring->fd < 0)
		return false;
	/* both rings in one piece, as on every kernel that we support */
	CHECK(params.features & IORING_FEAT_SINGLE_MMAP);
	ring->words_size = params.cq_off.cqes +
			   params.cq_entries * sizeof(struct io_uring_cqe);
	if (ring->words_size < params.sq_off.array + params.sq_entries * 4)
		ring->words_size = params.sq_off.array + params.sq_entries * 4;
	ring->sqes_size = params.sq_entries * sizeof(struct io_uring_sqe);
	ring->words = map(ring->fd, ring->words_size, IORING_OFF_SQ_RING);
	ring->sqes = map(ring->fd, ring->sqes_size, IORING_OFF_SQES);
	ring->sq_tail = word(ring, params.sq_off.tail);
	ring->sq_array = word(ring, params.sq_off.array);
	ring->sq_mask = *word(ring, params.sq_off.ring_mask);
	ring->cq_head = word(ring, params.cq_off.head);
	ring->cq_tail = word(ring, params.cq_off.tail);
	ring->cq_mask = *word(ring, params.cq_off.ring_mask);
	ring->cqes = (void *)word(ring, params.cq_off.cqes);
	return true;
}

void ring_close(struct ring *ring)
{
	munmap(ring->words, ring->words_size);
	munmap(ring->sqes, ring->sqes_size);
	close(ring->fd);
	if (ring->buffers)
		munmap(ring->buffers, (ring->buffer_mask + 1) *
				      sizeof(struct io_uring_buf));
}

struct io_uring_sqe *ring_prepare(struct ring *ring, int op, int fd)
{
	unsigned int tail = *ring->sq_tail;
	unsigned int at = tail & ring->sq_mask;
	struct io_uring_sqe *sqe = &ring->sqes[at];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = (uint8_t)op;
	sqe->fd = fd;
	ring->sq_array[at] = at;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	ring->prepared++;
	return sqe;
}

void ring_enter(struct ring *ring, unsigned int wait)
{
	unsigned int nr = ring->prepared;

	ring->prepared = 0;
	CHECK(syscall(SYS_io_uring_enter, ring->fd, nr, wait,
		      wait ? IORING_ENTER_GETEVENTS : 0, NULL, 0) == (long)nr);
}

unsigned int ring_ready(const struct ring *ring)
{
	return __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE) -
	       *ring->cq_head;
}

struct completion ring_take(struct ring *ring)
{
	unsigned int head = *ring->cq_head;
	struct completion done;
	struct io_uring_cqe *cqe;

	if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		ring_enter(ring, 1);
	cqe = &ring->cqes[head & ring->cq_mask];
	done.result = cqe->res;
	done.flags = cqe->flags;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return done;
}

void ring_give(struct ring *ring, void *at, size_t size, unsigned int id)
{
	struct io_uring_buf *buf;

	buf = &ring->buffers->bufs[ring->buffer_tail & ring->buffer_mask];
	buf->addr = (uintptr_t)at;
	buf->len = (uint32_t)size;
	buf->bid = (uint16_t)id;
	__atomic_store_n(&ring->buffers->tail, ++ring->buffer_tail,
			 __ATOMIC_RELEASE);
}

bool ring_give_buffers(struct ring *ring, char *memory, unsigned int nr,
		       size_t size)
{
	struct io_uring_buf_reg reg = { .ring_entries = nr };
	unsigned int i;

	ring->buffers = mmap(NULL, nr * sizeof(struct io_uring_buf),
			     PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	CHECK(ring->buffers != MAP_FAILED);
	reg.ring_addr = (uintptr_t)ring->buffers;
	ring->buffer_mask = nr - 1;
	if (syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_PBUF_RING,
		    &reg, 1))
		return false;
	for (i = 0; i < nr; i++)
		ring_give(ring, memory + i * size, size, i);
	return true;
}
