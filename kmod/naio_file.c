// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a file to a socket: what a SENDFILE reads, and how that never waits.
 *
 * Whoever moves a transfer must not sleep for a file: it may be the caller
 * itself, in ADD or in WAIT, and REMOVE and the close of a queue wait for it.  So
 * a step does not read.  It looks for the next pages in the page cache, and gives
 * those that are there and up to date to the socket, by reference.  No splice,
 * which would read what has been evicted since, and take what locks a file system
 * likes to take.
 *
 * What is not there is left to the reader's work.  That reads, in the name of who
 * asked for the transfer, and starts the lane again when it is done.  It may read
 * for ever, from a server that does not answer: nobody waits for it.  The
 * transfer that ends detaches itself under kevent_readers_lock, and whoever has
 * the last reference lets go of the file.  The reader works in one of two ways:
 *
 *	fill	the pages become resident, and those that follow are on their
 *		way.  It is started early where there is time for that: when half
 *		of what was there before has been sent
 *	copy	into pages of its own, which go to the socket then.  For what
 *		cannot be seen in the page cache: holes of tmpfs, DAX, or what was
 *		evicted at once; and for all file systems that have more to say to
 *		a read than their page cache has, as those of a network, in user
 *		space, shared by machines, or on top of others
 *
 *	kevent_readers_lock	who reads and who waits for that; the transfer of
 *				a reader; taken above the lane's lock
 *
 * While @reading is true the rest of a request belongs to the work, else to who
 * made the transfer its lane's current one.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/fadvise.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fsnotify.h>
#include <linux/kthread.h>
#include <linux/magic.h>
#include <linux/memcontrol.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/net.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <net/tcp.h>

#include "compat.h"
#include "naio.h"

/* No header has it. */
#define KEVENT_CONFIGFS_MAGIC	0x62656570

/* Bytes that one step moves. */
#define KEVENT_READER_STEP	SZ_256K

/* Bytes that are made resident in one go, and that as many follow. */
#define KEVENT_READER_FILL	SZ_128K

/* Pages that are copied in one go, and their bytes. */
#define KEVENT_READER_PAGES	16
#define KEVENT_READER_COPY	(KEVENT_READER_PAGES * PAGE_SIZE)

/* Readers of one user that read at once: who has a server hang keeps no more. */
#define KEVENT_READERS		16

static DEFINE_SPINLOCK(kevent_readers_lock);
/* Lets go of what was read for nobody, which does not take long. */
static struct workqueue_struct *kevent_readers_last;

/**
 * struct kevent_copy - pages of a reader's own
 * @at:		where in the file it begins
 * @length:	bytes that were read
 * @nr:		how many pages there are
 * @page:	these
 */
struct kevent_copy {
	loff_t at;
	size_t length;
	unsigned int nr;
	struct page *page[KEVENT_READER_PAGES];
};

/**
 * struct kevent_reader - the file of a transfer
 * @refs:	of the transfer, and of the work
 * @transfer:	whose it is; NULL once that has ended
 * @node:	among those of the user that wait for a reader's place
 * @work:	reads
 * @last:	lets go of what @work was given, where the transfer has ended
 * @file:	held
 * @cred:	who asked for the transfer
 * @memcg:	who pays for pages
 * @blkcg:	who pays for what is read from a disk, or NULL
 * @account:	who pays for the file, has the places and runs @work
 * @reading:	the work is to be done, or under way
 * @from:	where it begins; this and the following are @reading's, see above
 * @to:		how far it came
 * @copying:	it is to copy
 * @error:	why it went no further: -errno, or 0
 * @copy:	what it has copied, or NULL
 * @eof:	the file ended there
 * @pos:	bytes of the file up to here were sent; this and the following are
 *		the transfer's
 * @end:	bytes of the file are sent up to here
 * @ahead:	nothing is to be done yet to have the file resident up to here
 * @all:	@end is the end of the file
 * @cached:	the page cache is all there is to the file's contents
 * @fills:	and reading makes them resident
 * @asks:	the first byte has to be read
 * @seen:	bytes were sent that were not read
 * @over:	no more of the file will be sent
 * @kept:	the last bytes were taken as such that others follow
 * @prefix:	bytes before the file
 * @suffix:	bytes after it
 * @said:	how many of these were sent
 * @bytes:	these
 */
struct kevent_reader {
	refcount_t refs;
	struct kevent_naio *transfer;
	struct list_head node;
	struct work_struct work;
	struct work_struct last;
	struct file *file;
	const struct cred *cred;
	struct mem_cgroup *memcg;
	struct cgroup_subsys_state *blkcg;
	struct kevent_account *account;
	bool reading;

	loff_t from;
	loff_t to;
	bool copying;
	int error;
	struct kevent_copy *copy;
	bool eof;

	loff_t pos;
	loff_t end;
	loff_t ahead;
	bool all;
	bool cached;
	bool fills;
	bool asks;
	bool seen;
	bool over;
	bool kept;
	u32 prefix;
	u32 suffix;
	u32 said;
	u8 bytes[];
};

static void kevent_copy_free(struct kevent_reader *r)
{
	unsigned int i;

	if (!r->copy)
		return;
	/* the socket has references of its own */
	for (i = 0; i < r->copy->nr; i++)
		put_page(r->copy->page[i]);
	kfree(r->copy);
	r->copy = NULL;
}

static void kevent_reader_put(struct kevent_reader *r)
{
	if (!refcount_dec_and_test(&r->refs))
		return;
	kevent_copy_free(r);
	/* a thread of the kernel's has no way back to user space to do it on */
	if (current->flags & PF_KTHREAD) {
		kevent_put_pin(r->file, r->account, 0);
	} else {
		fput(r->file);
		kevent_uncharge_pin(r->account);
	}
	mem_cgroup_put(r->memcg);
	if (r->blkcg)
		css_put(r->blkcg);
	put_cred(r->cred);
	kvfree(r);
}

/* Whether the work is to be done, or under way. */
static bool kevent_reader_reads(const struct kevent_reader *r)
{
	/* if not, what it has done is seen: pairs with its end */
	return smp_load_acquire(&r->reading);
}

/* A hint: whether a page of the file is there. */
static bool kevent_reader_has(const struct kevent_reader *r, loff_t pos)
{
	struct folio *folio = filemap_get_folio(r->file->f_mapping,
						pos >> PAGE_SHIFT);
	bool has;

	/* what says that there is none depends on the kernel */
	if (IS_ERR_OR_NULL(folio))
		return false;
	has = folio_test_uptodate(folio);
	folio_put(folio);
	return has;
}

/* The work, or a part of it */

static ssize_t kevent_reader_touch(struct kevent_reader *r, loff_t pos)
{
	struct iov_iter iter;
	struct kvec vec;
	u8 byte;

	vec.iov_base = &byte;
	vec.iov_len = sizeof(byte);
	iov_iter_kvec(&iter, ITER_DEST, &vec, 1, sizeof(byte));
	return vfs_iter_read(r->file, &iter, &pos, 0);
}

/* Not what makes a transfer wait: nobody would call. */
static int kevent_reader_error(ssize_t ret)
{
	if (ret == -EAGAIN || ret == -EINTR || ret == -EINPROGRESS ||
	    ret <= -ERESTARTSYS)
		return -EIO;
	return ret;
}

static void kevent_reader_fill(struct kevent_reader *r)
{
	loff_t size = min(i_size_read(file_inode(r->file)), r->end);
	loff_t left = size - r->from, pos = r->from;

	if (left > 0)
		vfs_fadvise(r->file, pos, min_t(loff_t, left, 2 * KEVENT_READER_FILL),
			    POSIX_FADV_WILLNEED);
	left = min_t(loff_t, left, KEVENT_READER_FILL);
	do {
		loff_t step = PAGE_SIZE - offset_in_page(pos);
		ssize_t ret = 1;

		if (pos == r->from || !kevent_reader_has(r, pos))
			ret = kevent_reader_touch(r, pos);
		r->to = pos;
		if (ret < 0) {
			r->error = kevent_reader_error(ret);
			break;
		}
		/* a file may end where the numbers do */
		r->to++;
		if (left <= step)
			break;
		left -= step;
		pos += step;
		cond_resched();
	} while (READ_ONCE(r->transfer));
}

/* What a copy begins and ends with: a device has blocks, and no parts of them. */
static unsigned long kevent_copy_unit(const struct kevent_reader *r)
{
	if (!(r->file->f_flags & O_DIRECT))
		return 1;
	return clamp_t(unsigned long, i_blocksize(file_inode(r->file)),
		       PAGE_SIZE, KEVENT_READER_COPY);
}

/* How many bytes are to be copied: to read the end of the file takes one more. */
static size_t kevent_copy_room(const struct kevent_reader *r, loff_t at)
{
	loff_t left = i_size_read(file_inode(r->file)) - at;
	u64 room = min_t(u64, r->end - at, KEVENT_READER_COPY);

	/* where there is no size there may be contents */
	if (left > 0 && left < room)
		room = left + 1;
	return min_t(u64, round_up(room, kevent_copy_unit(r)), S64_MAX - at);
}

static int kevent_copy_read(struct kevent_reader *r, size_t room)
{
	struct bio_vec bvec[KEVENT_READER_PAGES];
	struct kevent_copy *copy = r->copy;
	loff_t pos = copy->at;
	struct iov_iter iter;
	ssize_t ret;

	while (copy->nr < DIV_ROUND_UP(room, PAGE_SIZE)) {
		struct page *page = alloc_page(KEVENT_GFP);

		if (!page)
			return -ENOMEM;
		bvec_set_page(&bvec[copy->nr], page, PAGE_SIZE, 0);
		copy->page[copy->nr++] = page;
	}
	iov_iter_bvec(&iter, ITER_DEST, bvec, copy->nr, room);
	do {
		ret = vfs_iter_read(r->file, &iter, &pos, 0);
		if (ret < 0)
			return pos > r->from ? 0 : ret;
		r->eof = !ret;
		copy->length += ret;
	} while (ret && iov_iter_count(&iter) && READ_ONCE(r->transfer));
	return 0;
}

static void kevent_reader_copy(struct kevent_reader *r)
{
	int ret = -ENOMEM;

	r->copy = kzalloc(sizeof(*r->copy), KEVENT_GFP);
	if (r->copy) {
		loff_t at = round_down(r->from, kevent_copy_unit(r));

		r->copy->at = at;
		ret = kevent_copy_read(r, kevent_copy_room(r, at));
		r->to = max_t(loff_t, r->from, at + r->copy->length);
	}
	if (ret < 0)
		r->error = kevent_reader_error(ret);
}

/*
 * The work is done, or nobody wants it any more: its place is the next one's.
 * The lock is held.
 */
static void kevent_reader_pass_on_locked(struct kevent_account *account)
{
	struct kevent_reader *next;

	next = list_first_entry_or_null(&account->readers_wait,
					struct kevent_reader, node);
	if (!next) {
		account->readers--;
		return;
	}
	list_del_init(&next->node);
	queue_work(account->reads, &next->work);
}

/* What a reader was given to read.  Its queue may be gone. */
static void kevent_reader_let_go(struct kevent_reader *r)
{
	struct kevent_account *account = r->account;

	kevent_reader_put(r);
	kevent_account_put(account);
	module_put(THIS_MODULE);
}

static void kevent_reader_last(struct work_struct *work)
{
	kevent_reader_let_go(container_of(work, struct kevent_reader, last));
}

static void kevent_reader_read(struct kevent_reader *r)
{
	struct mem_cgroup *memcg = set_active_memcg(r->memcg);
	const struct cred *cred = override_creds(r->cred);

	kthread_associate_blkcg(r->blkcg);
	if (!READ_ONCE(r->transfer))
		r->error = -ECANCELED;
	else if (r->copying)
		kevent_reader_copy(r);
	else
		kevent_reader_fill(r);
	kthread_associate_blkcg(NULL);
	revert_creds(cred);
	set_active_memcg(memcg);
}

static void kevent_reader_work(struct work_struct *work)
{
	struct kevent_reader *r = container_of(work, struct kevent_reader, work);
	struct kevent_account *account = r->account;
	bool last;

	kevent_reader_read(r);
	spin_lock(&kevent_readers_lock);
	/* what was read is seen by who sees this */
	smp_store_release(&r->reading, false);
	kevent_reader_pass_on_locked(account);
	last = !r->transfer;
	if (!last) {
		kevent_lane_kick(r->transfer->lane);
		/* the transfer holds both */
		refcount_dec(&r->refs);
		kevent_account_let_go(account);
	}
	spin_unlock(&kevent_readers_lock);
	/* the end of the account waits for us, so it cannot be our doing */
	if (last)
		queue_work(kevent_readers_last, &r->last);
	else
		module_put(THIS_MODULE);
}

/* Has the file read from @from on. */
static void kevent_reader_start(struct kevent_reader *r, loff_t from, bool copy)
{
	struct kevent_account *account = r->account;

	kevent_copy_free(r);
	r->from = from;
	r->to = from;
	r->error = 0;
	r->eof = false;
	r->copying = copy;
	refcount_inc(&r->refs);
	kevent_account_hold(account);
	/* a file that nobody can read keeps the module in use, and no more */
	__module_get(THIS_MODULE);
	spin_lock(&kevent_readers_lock);
	WRITE_ONCE(r->reading, true);
	if (account->readers < KEVENT_READERS) {
		account->readers++;
		queue_work(account->reads, &r->work);
	} else {
		list_add_tail(&r->node, &account->readers_wait);
	}
	spin_unlock(&kevent_readers_lock);
}

/* The step */

/* Whether there is to be something after what is sent of the file up to @pos. */
static bool kevent_reader_more(const struct kevent_reader *r, loff_t pos)
{
	loff_t size = i_size_read(file_inode(r->file));

	return pos < min(r->end, size) ||
	       (r->suffix && (r->all || r->end <= size));
}

/* What is said with bytes, as @how has it, which are followed by @more. */
static void kevent_reader_flags(struct msghdr *how, bool more)
{
	how->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0);
}

/*
 * Has TCP send the part of a segment that it keeps back for what follows.  Where
 * that finds no room, or does not come, it would be kept until the peer
 * acknowledges something else, or for 200 ms and more: a call that takes no bytes
 * sends none.
 */
static void kevent_reader_push(struct kevent_reader *r, struct sock *sk)
{
	bool kept = r->kept && sk->sk_protocol == IPPROTO_TCP;

	r->kept = false;
	/* who has corked the socket wants that; who does so just now is too late */
	if (kept && !data_race(tcp_sk(sk)->nonagle & TCP_NAGLE_CORK))
		tcp_sock_set_cork(sk, false);
}

/* What came of @length bytes, which are followed by @more: bytes, or -errno. */
static ssize_t kevent_reader_took(struct kevent_reader *r, struct sock *sk,
				  ssize_t ret, size_t length, bool more)
{
	if (ret <= 0)
		kevent_reader_push(r, sk);
	else
		r->kept = more && ret == length;
	return ret;
}

static ssize_t kevent_reader_say(struct kevent_reader *r, struct socket *sock,
				 struct msghdr *how, size_t length, bool more)
{
	struct kvec vec = {
		.iov_base = r->bytes + r->said,
		.iov_len = length,
	};
	ssize_t ret;

	kevent_reader_flags(how, more);
	ret = kernel_sendmsg(sock, how, &vec, 1, length);
	if (ret > 0)
		r->said += ret;
	return kevent_reader_took(r, sock->sk, ret, length, more);
}

/* Sends @length bytes of pages, which begin at @r->pos. */
static ssize_t kevent_reader_send(struct kevent_reader *r, struct socket *sock,
				  struct msghdr *how, struct bio_vec *bvec,
				  unsigned int nr, size_t length)
{
	bool more = kevent_reader_more(r, r->pos + length);
	ssize_t ret;

	kevent_reader_flags(how, more);
	ret = kevent_send_pages(sock, how, bvec, nr, length);
	if (ret > 0)
		r->pos += ret;
	return kevent_reader_took(r, sock->sk, ret, length, more);
}

/*
 * Whether there is a copy of what is to be sent next.  It may have been sent
 * meanwhile, by the page cache: what is of no use any more goes.
 */
static bool kevent_copy_is_next(struct kevent_reader *r)
{
	const struct kevent_copy *copy = r->copy;

	if (copy && r->pos >= copy->at && r->pos - copy->at < copy->length)
		return true;
	kevent_copy_free(r);
	return false;
}

/* Sends what was copied, and no more than up to @end. */
static ssize_t kevent_reader_send_copy(struct kevent_reader *r,
				       struct socket *sock, struct msghdr *how,
				       loff_t end)
{
	struct bio_vec bvec[KEVENT_READER_PAGES];
	const struct kevent_copy *copy = r->copy;
	size_t at = r->pos - copy->at;
	size_t left = min_t(u64, copy->length - at, end - r->pos);
	size_t room = left;
	unsigned int nr = 0;

	while (room) {
		unsigned int offset = offset_in_page(at);
		size_t part = min(room, PAGE_SIZE - offset);

		bvec_set_page(&bvec[nr++], copy->page[at / PAGE_SIZE], part,
			      offset);
		at += part;
		room -= part;
	}
	return kevent_reader_send(r, sock, how, bvec, nr, left);
}

/* How many bytes from @r->pos on a batch has, in so many elements of @bvec. */
static size_t kevent_reader_see(struct kevent_reader *r,
				struct folio_batch *batch, struct bio_vec *bvec,
				unsigned int *nr)
{
	struct address_space *mapping = r->file->f_mapping;
	size_t length = 0;
	unsigned int i;
	loff_t left;

	for (i = 0; i < folio_batch_count(batch); i++) {
		struct folio *folio = batch->folios[i];
		u64 offset = (u64)r->pos + length - folio_pos(folio);

		if (offset >= folio_size(folio) || !folio_test_uptodate(folio) ||
		    folio_contain_hwpoisoned_page(folio))
			break;
		folio_mark_accessed(folio);
		if (mapping_writably_mapped(mapping))
			flush_dcache_folio(folio);
		bvec_set_page(&bvec[i], folio_page(folio, offset / PAGE_SIZE),
			      folio_size(folio) - offset, offset % PAGE_SIZE);
		length += folio_size(folio) - offset;
	}
	*nr = i;
	/* none beyond the end that there was when they were up to date */
	left = min(i_size_read(mapping->host), r->end) - r->pos;
	return left > 0 ? min3((u64)length, (u64)left, (u64)KEVENT_READER_STEP) :
			  0;
}

/* Sends what the page cache has up to @end: bytes, 0 where nothing, or -errno. */
static ssize_t kevent_reader_send_cached(struct kevent_reader *r,
					 struct socket *sock,
					 struct msghdr *how, loff_t end)
{
	pgoff_t index = r->pos >> PAGE_SHIFT;
	struct folio_batch batch;
	struct bio_vec bvec[ARRAY_SIZE(batch.folios)];
	ssize_t ret = 0;
	unsigned int i, nr;
	size_t length;

	folio_batch_init(&batch);
	kevent_get_folios(r->file->f_mapping, &index, (end - 1) >> PAGE_SHIFT,
			  &batch);
	length = kevent_reader_see(r, &batch, bvec, &nr);
	if (length)
		ret = kevent_reader_send(r, sock, how, bvec, nr, length);
	for (i = 0; i < folio_batch_count(&batch); i++)
		folio_put(batch.folios[i]);
	if (ret > 0)
		r->seen = true;
	return ret;
}

/* Has what comes next read in time. */
static void kevent_reader_look_ahead(struct kevent_reader *r, loff_t end)
{
	if (!r->fills || r->pos + KEVENT_READER_FILL / 2 < r->ahead)
		return;
	r->ahead = max(r->ahead, r->pos);
	if (r->ahead >= end || kevent_reader_reads(r) || r->copy)
		return;
	if (!kevent_reader_has(r, r->ahead))
		kevent_reader_start(r, r->ahead, false);
	r->ahead += KEVENT_READER_FILL;
}

/* The file is to be read before anything of it is sent. */
static ssize_t kevent_reader_ask(struct kevent_reader *r)
{
	if (kevent_reader_reads(r))
		return -EAGAIN;
	if (r->to > r->pos) {
		r->asks = false;
		return 0;
	}
	if (r->error)
		return r->error;
	kevent_reader_start(r, r->pos, false);
	return -EAGAIN;
}

/* What is to be sent next is not there: -EAGAIN once it is to be read, or -errno. */
static ssize_t kevent_reader_miss(struct kevent_reader *r)
{
	if (r->error && r->pos >> PAGE_SHIFT == r->to >> PAGE_SHIFT)
		return r->error;
	if (!r->fills ||
	    (!r->copying && r->from <= r->pos && r->pos < r->to)) {
		kevent_reader_start(r, r->pos, true);
	} else {
		r->ahead = r->pos + KEVENT_READER_FILL;
		kevent_reader_start(r, r->pos, false);
	}
	return -EAGAIN;
}

/* Some bytes of the file: how many, 0 where there are no more, or -errno. */
static ssize_t kevent_reader_move(struct kevent_reader *r, struct socket *sock,
				  struct msghdr *how)
{
	loff_t end = r->end;
	ssize_t ret;
	bool reads;

	if (r->cached)
		end = min(end, i_size_read(file_inode(r->file)));
	if (r->pos >= end)
		return 0;
	ret = r->cached && r->asks ? kevent_reader_ask(r) : 0;
	if (ret)
		return ret;
	reads = kevent_reader_reads(r);
	if (!reads && kevent_copy_is_next(r))
		return kevent_reader_send_copy(r, sock, how, end);
	if (r->cached) {
		ret = kevent_reader_send_cached(r, sock, how, end);
		if (ret > 0)
			kevent_reader_look_ahead(r, end);
		if (ret)
			return ret;
	}
	/* where that ends meanwhile the lane was called */
	if (reads)
		return -EAGAIN;
	if (r->eof && r->pos == r->to)
		return 0;
	return kevent_reader_miss(r);
}

/* Some bytes of what is to be sent, or as above. */
static ssize_t kevent_reader_some(struct kevent_reader *r, struct socket *sock,
				  struct msghdr *how)
{
	ssize_t ret;

	if (r->said < r->prefix)
		return kevent_reader_say(r, sock, how, r->prefix - r->said,
					 kevent_reader_more(r, r->pos));
	if (!r->over) {
		ret = kevent_reader_move(r, sock, how);
		if (ret)
			return ret;
		r->over = true;
		/* it ended too early for what was to follow */
		if (!r->all && r->pos < r->end)
			r->suffix = 0;
	}
	if (r->said == r->prefix + r->suffix)
		return 0;
	return kevent_reader_say(r, sock, how,
				 r->prefix + r->suffix - r->said, false);
}

/**
 * kevent_reader_step - move a part of a SENDFILE, without waiting
 * @t:		the transfer, the current one of its lane
 * @sock:	the socket, whose file is held by the caller
 * @how:	what is to be said besides
 *
 * Return: as kevent_naio_step()
 */
int kevent_reader_step(struct kevent_naio *t, struct socket *sock,
		       struct msghdr *how)
{
	size_t moved = 0;
	ssize_t ret;

	while (moved < KEVENT_READER_STEP) {
		ret = kevent_reader_some(t->reader, sock, how);
		ret = kevent_naio_meaning(ret);
		if (ret == -EAGAIN || ret == -EINTR)
			return ret;
		if (ret <= 0) {
			kevent_reader_push(t->reader, sock->sk);
			t->error = -ret;
			return 1;
		}
		moved += ret;
		t->moved += ret;
		if (unlikely(kevent_naio_layered(sock->sk)))
			break;
	}
	return 0;
}

/* Coming and going */

/* Whether a first read has to find out that the file was accessed. */
static bool kevent_reader_dates(struct file *file)
{
	struct inode *inode = file_inode(file);
	struct timespec64 atime, mtime, ctime;
	int flags = file->f_path.mnt->mnt_flags;

	if ((file->f_flags & O_NOATIME) || (inode->i_flags & S_NOATIME) ||
	    IS_NOATIME(inode) || (flags & (MNT_NOATIME | MNT_READONLY)))
		return false;
	if (!(flags & MNT_RELATIME))
		return true;
	atime = inode_get_atime(inode);
	mtime = inode_get_mtime(inode);
	ctime = inode_get_ctime(inode);
	return timespec64_compare(&mtime, &atime) >= 0 ||
	       timespec64_compare(&ctime, &atime) >= 0 ||
	       ktime_get_real_seconds() - atime.tv_sec >= 24 * 60 * 60;
}

/*
 * File systems whose page cache is all that a machine has to ask.  Those that are
 * not known may have to ask others, as those that machines share.
 */
static bool kevent_reader_local(const struct super_block *sb)
{
	if (!(sb->s_type->fs_flags & FS_REQUIRES_DEV))
		return false;
	switch (sb->s_magic) {
	case BTRFS_SUPER_MAGIC:
	case EROFS_SUPER_MAGIC_V1:
	case EXFAT_SUPER_MAGIC:
	case EXT4_SUPER_MAGIC:	/* and those that were before it */
	case F2FS_SUPER_MAGIC:
	case ISOFS_SUPER_MAGIC:
	case MSDOS_SUPER_MAGIC:
	case SQUASHFS_MAGIC:
	case UDF_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

/* What the page cache can be trusted with. */
static void kevent_reader_look(struct kevent_reader *r)
{
	struct inode *inode = file_inode(r->file);
	struct super_block *sb = inode->i_sb;

	if (r->file->f_mapping != inode->i_mapping || IS_DAX(inode) ||
	    (r->file->f_flags & O_DIRECT) || kevent_file_is_filled(r->file))
		return;
	switch (sb->s_magic) {
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
		r->cached = true;
		break;
	default:
		r->cached = kevent_reader_local(sb);
		r->fills = r->cached;
	}
}

/* May the caller read it?  Where that is for others to say they are asked later. */
static int kevent_reader_permit(struct kevent_reader *r)
{
	size_t count = min_t(loff_t, r->end - r->pos, MAX_RW_COUNT);
	int ret;

	r->asks = kevent_file_asks(r->file);
	if (!r->asks) {
		ret = rw_verify_area(READ, r->file, &r->pos, count);
		if (ret)
			return ret;
	}
	/* a file system on a device may have to wait for its journal */
	if (r->fills && kevent_reader_dates(r->file))
		r->asks = true;
	else if (r->cached)
		file_accessed(r->file);
	return 0;
}

/* Who pays for what the current process has read from a disk; to be put. */
static struct cgroup_subsys_state *kevent_reader_blkcg(void)
{
#ifdef CONFIG_BLK_CGROUP
	return task_get_css(current, io_cgrp_id);
#else
	return NULL;
#endif
}

/* A user whose files nobody reads keeps none but their own waiting. */
static int kevent_readers_account_init(struct kevent_account *account)
{
	struct workqueue_struct *fresh;

	/* pairs with the barriers of cmpxchg() */
	if (smp_load_acquire(&account->reads))
		return 0;
	/* no more than KEVENT_READERS are ever queued */
	fresh = alloc_workqueue("kevent_reader", WQ_UNBOUND, 0);
	if (!fresh)
		return -ENOMEM;
	if (cmpxchg(&account->reads, NULL, fresh))
		destroy_workqueue(fresh);
	return 0;
}

/**
 * kevent_readers_account_exit - when the user has no queue left
 * @account:	of the user
 */
void kevent_readers_account_exit(struct kevent_account *account)
{
	if (account->reads)
		destroy_workqueue(account->reads);
}

static int kevent_sendfile_get(struct kevent_sendfile *req,
			       const void __user *address, size_t size)
{
	if (copy_from_user(req, address, sizeof(*req)))
		return -EFAULT;
	if (req->flags || (u64)req->prefix + req->suffix != size - sizeof(*req))
		return -EINVAL;
	if (req->offset > S64_MAX)
		return -EINVAL;
	if (req->length != KEVENT_SENDFILE_ALL &&
	    req->length > S64_MAX - req->offset)
		return -EINVAL;
	return 0;
}

/*
 * Whether the kernel makes up the contents for whoever reads them: a thread of its
 * own has other namespaces, and more privileges, than who asks for the transfer.
 */
static bool kevent_file_is_made_up(const struct file *file)
{
	/* an overlay of such shows it */
	const struct super_block *sb = d_real_inode(file->f_path.dentry)->i_sb;

	switch (sb->s_magic) {
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case KEVENT_CONFIGFS_MAGIC:
	case DEBUGFS_MAGIC:
	case PROC_SUPER_MAGIC:
	case SECURITYFS_MAGIC:
	case SELINUX_MAGIC:
	case SMACK_MAGIC:
	case SYSFS_MAGIC:
	case TRACEFS_MAGIC:
		return true;
	}
	/* all others of kernfs */
	return sb->s_iflags & SB_I_NOEXEC;
}

static int kevent_sendfile_file(const struct kevent_sendfile *req,
				struct file **filep)
{
	struct file *file = req->file < 0 ? NULL : fget(req->file);
	int ret = -EBADF;

	if (!file)
		return -EBADF;
	if (!(file->f_mode & FMODE_READ))
		goto put;
	ret = -EINVAL;
	if (!S_ISREG(file_inode(file)->i_mode) || !file->f_op->read_iter ||
	    kevent_file_is_made_up(file))
		goto put;
	*filep = file;
	return 0;
put:
	fput(file);
	return ret;
}

/**
 * kevent_reader_check - refuse what no SENDFILE can mean
 * @req:	the request
 *
 * Return: 0 or -EINVAL
 */
int kevent_reader_check(const struct kevent_request *req)
{
	size_t least = sizeof(struct kevent_sendfile);

	if (req->param[1] < least ||
	    req->param[1] > least + KEVENT_SENDFILE_EXTRA)
		return -EINVAL;
	return 0;
}

/**
 * kevent_reader_open - take over what a SENDFILE is to send; may sleep
 * @t:		the transfer
 * @address:	of a struct kevent_sendfile and the bytes that follow
 * @size:	of these together, checked
 *
 * Return: 0 or -errno
 */
int kevent_reader_open(struct kevent_naio *t, const void __user *address,
		       size_t size)
{
	struct kevent_sendfile req;
	struct kevent_reader *r;
	int ret;

	ret = kevent_sendfile_get(&req, address, size);
	if (ret)
		return ret;
	size -= sizeof(req);
	r = kvzalloc(struct_size(r, bytes, size), KEVENT_GFP);
	if (!r)
		return -ENOMEM;
	ret = -EFAULT;
	if (copy_from_user(r->bytes, address + sizeof(req), size))
		goto free;
	ret = kevent_sendfile_file(&req, &r->file);
	if (ret)
		goto free;
	r->account = t->kevent.user->account;
	ret = kevent_readers_account_init(r->account);
	if (ret)
		goto put;
	ret = kevent_charge_pin(r->account);
	if (ret)
		goto put;
	refcount_set(&r->refs, 1);
	INIT_LIST_HEAD(&r->node);
	INIT_WORK(&r->work, kevent_reader_work);
	INIT_WORK(&r->last, kevent_reader_last);
	r->cred = get_current_cred();
	r->memcg = get_mem_cgroup_from_mm(current->mm);
	r->blkcg = kevent_reader_blkcg();
	r->pos = req.offset;
	r->all = req.length == KEVENT_SENDFILE_ALL;
	r->end = r->all ? S64_MAX : req.offset + req.length;
	r->prefix = req.prefix;
	r->suffix = req.suffix;
	r->transfer = t;
	kevent_reader_look(r);
	/* from here on kevent_reader_close() does it */
	t->reader = r;
	return kevent_reader_permit(r);

put:
	fput(r->file);
free:
	kvfree(r);
	return ret;
}

/**
 * kevent_reader_close - let go of the file of a transfer
 * @t:		the transfer, which nobody moves any more
 *
 * Where it is being read it is let go of when that ends, and nobody waits.
 */
void kevent_reader_close(struct kevent_naio *t)
{
	struct kevent_reader *r = t->reader;
	bool waits;

	t->reader = NULL;
	if (r->seen)
		fsnotify_access(r->file);
	spin_lock(&kevent_readers_lock);
	WRITE_ONCE(r->transfer, NULL);
	waits = !list_empty(&r->node);
	list_del_init(&r->node);
	spin_unlock(&kevent_readers_lock);
	if (waits)
		kevent_reader_let_go(r);
	kevent_reader_put(r);
}

/**
 * kevent_readers_init - at load
 *
 * Return: 0 or -ENOMEM
 */
int kevent_readers_init(void)
{
	kevent_readers_last = alloc_workqueue("kevent_reader_last", WQ_UNBOUND, 0);
	return kevent_readers_last ? 0 : -ENOMEM;
}

/**
 * kevent_readers_exit - at unload: those who let the module go are on their way
 */
void kevent_readers_exit(void)
{
	destroy_workqueue(kevent_readers_last);
}
