// SPDX-License-Identifier: GPL-2.0-only
/*
 * The caller's memory, held while the kernel may touch it though the caller is
 * elsewhere.
 *
 * Pages that stay pinned are charged as those that RDMA pins are: to the
 * process, against its RLIMIT_MEMLOCK, before the first of them is pinned.
 * /proc/PID/status shows the sum as VmPin.  They also count for the user, against
 * the same limit, since a process that forks or executes begins at 0 again.
 * Whatever was pinned is unpinned by kevent_unpin(), which forgets it, and nothing
 * else does.
 */
#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "compat.h"
#include "naio.h"

/* Pages that are looked up, or let go of, in one go. */
#define KEVENT_PIN_BATCH	32

/* Bytes of another process' memory: what the largest datagram has. */
#define KEVENT_PIN_REMOTE	SZ_1M

static bool kevent_pin_charge(struct kevent_pin *pin,
			      struct kevent_account *account,
			      unsigned long pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	unsigned long user = atomic_long_add_return(pages, &account->pinned);
	struct mm_struct *mm = current->mm;

	if (max_t(u64, atomic64_add_return(pages, &mm->pinned_vm), user) > limit &&
	    !capable(CAP_IPC_LOCK)) {
		atomic64_sub(pages, &mm->pinned_vm);
		atomic_long_sub(pages, &account->pinned);
		return false;
	}
	pin->account = account;
	/* the process may end before the transfer does */
	mmgrab(mm);
	pin->mm = mm;
	pin->charged = pages;
	return true;
}

/* Pages of another process, whose memory is held. */
static int kevent_pin_others(struct mm_struct *mm, unsigned long start,
			     unsigned long pages, struct page **page)
{
	int nr, locked = 1;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	/* with the lock let go of it waits for a page no longer than we live */
	nr = kevent_pin_user_pages_remote(mm, start, pages, FOLL_WRITE, page,
					  &locked);
	if (locked)
		mmap_read_unlock(mm);
	return nr;
}

/* One that is written back to a file, which who lets go of it would wait for. */
static bool kevent_page_of_file(struct page *page)
{
	struct folio *folio = page_folio(page);

	return !folio_test_swapbacked(folio) && !folio_test_hugetlb(folio) &&
	       folio_mapping(folio);
}

/* Pins up to a batch of pages from @start on: how many, or -errno. */
static int kevent_pin_batch(struct kevent_pin *pin, unsigned long start,
			    unsigned long pages)
{
	unsigned int flags = FOLL_LONGTERM | (pin->dirty ? FOLL_WRITE : 0);
	struct page *page[KEVENT_PIN_BATCH];
	bool files = false;
	int i, nr;

	if (fatal_signal_pending(current))
		return -EINTR;
	pages = min_t(unsigned long, pages, ARRAY_SIZE(page));
	if (pin->mm == current->mm)
		nr = pin_user_pages_fast(start, pages, flags, page);
	else
		nr = kevent_pin_others(pin->mm, start, pages, page);
	if (!nr)
		return -EFAULT;
	for (i = 0; i < nr; i++) {
		files |= kevent_page_of_file(page[i]);
		bvec_set_page(&pin->bvec[pin->nr++], page[i], PAGE_SIZE, 0);
	}
	/* of what is pinned for long newer kernels say so themselves */
	return files && pin->dirty && pin->account ? -EFAULT : nr;
}

static unsigned long kevent_pin_pages(unsigned long start, size_t length)
{
	return length ? DIV_ROUND_UP(offset_in_page(start) + length, PAGE_SIZE) :
			0;
}

/* Pins it once @pin knows whose it is: 0 or -errno, where nothing is pinned. */
static int kevent_pin_all(struct kevent_pin *pin, unsigned long start,
			  size_t length, bool write, struct iov_iter *iter)
{
	unsigned int offset = offset_in_page(start);
	unsigned long pages = kevent_pin_pages(start, length);
	unsigned long first = start - offset;
	int ret = -ENOMEM;

	pin->dirty = write;
	pin->bvec = pin->inline_bvec;
	if (pages > ARRAY_SIZE(pin->inline_bvec))
		pin->bvec = kvmalloc_array(pages, sizeof(*pin->bvec), KEVENT_GFP);
	if (!pin->bvec)
		goto unpin;
	while (pin->nr < pages) {
		ret = kevent_pin_batch(pin, first + pin->nr * PAGE_SIZE,
				       pages - pin->nr);
		if (ret < 0)
			goto unpin;
		cond_resched();
	}
	iov_iter_bvec(iter, write ? ITER_DEST : ITER_SOURCE, pin->bvec, pages,
		      pages * PAGE_SIZE);
	iov_iter_advance(iter, offset);
	iov_iter_truncate(iter, length);
	return 0;

unpin:
	/* nothing was written to them */
	pin->dirty = false;
	kevent_unpin(pin);
	return ret;
}

/**
 * kevent_pin_user - pin memory of the current process, for as long as it takes
 * @pin:	zeroed; to be let go of by kevent_unpin() if it has an mm
 * @account:	of the user who asked
 * @start:	address
 * @length:	bytes, from 0 to KEVENT_NAIO_MAX
 * @write:	it will be written to
 * @iter:	made to go through that memory
 *
 * Return: 0 or -errno, where nothing is pinned
 */
int kevent_pin_user(struct kevent_pin *pin, struct kevent_account *account,
		    unsigned long start, size_t length, bool write,
		    struct iov_iter *iter)
{
	if (!kevent_pin_charge(pin, account, kevent_pin_pages(start, length)))
		return -ENOMEM;
	return kevent_pin_all(pin, start, length, write, iter);
}

/**
 * kevent_pin_remote - pin memory of another process, to be written to at once
 * @pin:	zeroed; to be let go of by kevent_unpin() if nothing failed
 * @mm:		the memory, held by the caller, though the process may have ended
 * @start:	address
 * @length:	bytes; no more than KEVENT_PIN_REMOTE of them are pinned
 * @iter:	made to go through that memory
 *
 * Return: 0 or -errno, where nothing is pinned
 */
int kevent_pin_remote(struct kevent_pin *pin, struct mm_struct *mm,
		      unsigned long start, size_t length, struct iov_iter *iter)
{
	int ret;

	if (!mmget_not_zero(mm))
		return -EFAULT;
	mmgrab(mm);
	pin->mm = mm;
	ret = kevent_pin_all(pin, start, min_t(size_t, length, KEVENT_PIN_REMOTE),
			     true, iter);
	/* nobody waits here for what a process leaves behind */
	mmput_async(mm);
	return ret;
}

/**
 * kevent_unpin - let go of pinned memory
 * @pin:	the pages, or what there is of them; nobody touches them any more
 */
void kevent_unpin(struct kevent_pin *pin)
{
	struct page *page[KEVENT_PIN_BATCH];
	unsigned long i = 0;

	while (i < pin->nr) {
		unsigned int nr = 0;

		while (i < pin->nr && nr < ARRAY_SIZE(page))
			page[nr++] = pin->bvec[i++].bv_page;
		unpin_user_pages_dirty_lock(page, nr, pin->dirty);
		cond_resched();
	}
	if (pin->bvec != pin->inline_bvec)
		kvfree(pin->bvec);
	atomic64_sub(pin->charged, &pin->mm->pinned_vm);
	if (pin->account)
		atomic_long_sub(pin->charged, &pin->account->pinned);
	mmdrop(pin->mm);
	*pin = (struct kevent_pin){};
}
