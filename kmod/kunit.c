// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unit tests of what only an interleaving brings about: things that happen to a
 * kevent while a delivery has a claim on it.  From userspace that is a matter
 * of luck; here each step is taken in turn.  They run when a debug build is
 * loaded; the results are in /sys/kernel/debug/kunit.
 */
#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/poll.h>
#include <linux/slab.h>

#include "kevent.h"

/**
 * struct kevent_fake - a file of which the test says what poll(2) finds
 * @wait:	its wait queue
 * @events:	what holds
 * @fd:	in the table of files of the thread that runs the test
 * @meddle:	called once by the next poll, which is to say: under a claim
 * @test:	whose it is
 */
struct kevent_fake {
	wait_queue_head_t wait;
	__poll_t events;
	int fd;
	void (*meddle)(struct kunit *test);
	struct kunit *test;
};

struct kevent_scene {
	struct kevent_user *user;
	struct kevent_delivery d;
	struct kevent_fake fake;
};

static __poll_t kevent_fake_poll(struct file *file, poll_table *pt)
{
	struct kevent_fake *fake = file->private_data;
	void (*meddle)(struct kunit *test) = fake->meddle;

	poll_wait(file, &fake->wait, pt);
	/* not when it is being added: that is under the mutex, without claim */
	if (meddle && !(pt && pt->_qproc)) {
		fake->meddle = NULL;
		meddle(fake->test);
	}
	return fake->events;
}

static const struct file_operations kevent_fake_fops = {
	.poll	= kevent_fake_poll,
};

static struct kevent_scene *scene_of(struct kunit *test)
{
	return test->priv;
}

static struct kevent_request ask(u16 type, u64 ident, u32 events, u32 flags)
{
	return (struct kevent_request){
		.type = type, .ident = ident, .cookie = ident + 1000,
		.events = events, .flags = flags,
	};
}

static void add_user(struct kunit *test, u64 ident, u32 flags)
{
	struct kevent_request req = ask(KEVENT_USER, ident,
					KEVENT_USER_POSTED, flags);

	KUNIT_ASSERT_EQ(test, 0, kevent_add(scene_of(test)->user, &req));
}

static void post(struct kunit *test, u64 ident, u64 data)
{
	KUNIT_ASSERT_EQ(test, 0, kevent_post(scene_of(test)->user, ident, data));
}

static void add_fake(struct kunit *test, u32 flags)
{
	struct kevent_scene *s = scene_of(test);
	struct kevent_request req = ask(KEVENT_POLL, s->fake.fd, POLLIN, flags);

	KUNIT_ASSERT_EQ(test, 0, kevent_add(s->user, &req));
}

static void fake_active(struct kunit *test, __poll_t events)
{
	struct kevent_fake *fake = &scene_of(test)->fake;

	fake->events = events;
	wake_up_poll(&fake->wait, EPOLLIN);
}

static void remove(struct kunit *test, u16 type, u64 ident)
{
	struct kevent_request req = ask(type, ident, 0, 0);

	req.cookie = 0;
	KUNIT_ASSERT_EQ(test, 0, kevent_remove(scene_of(test)->user, &req));
}

static void modify(struct kunit *test, u16 type, u64 ident, u32 events,
		   u32 flags)
{
	struct kevent_request req = ask(type, ident, events, flags);

	KUNIT_ASSERT_EQ(test, 0, kevent_modify(scene_of(test)->user, &req));
}

static unsigned long kevents(struct kunit *test)
{
	struct kevent_info info;

	KUNIT_ASSERT_EQ(test, 0, kevent_info(scene_of(test)->user, &info));
	return info.kevents;
}

/* How many of the kevents that are counted have been freed. */
static unsigned int freed;
static const struct kevent_ops *counted_ops;

static void count_release(struct kevent *k)
{
	freed++;
	if (counted_ops->release)
		counted_ops->release(k);
}

/*
 * From now on it is counted when @k is freed.  That is looked at before anything
 * in @k is, its items among that, so that a test fails and not the kernel.
 */
static void count_free(struct kevent *k)
{
	static struct kevent_ops ops;

	counted_ops = k->ops;
	ops = *k->ops;
	ops.release = count_release;
	k->ops = &ops;
	freed = 0;
}

/* Removed, but not freed: the delivery has a claim on @k. */
static void only_the_claim_is_left(struct kunit *test, struct kevent *k)
{
	KUNIT_ASSERT_EQ(test, 0, freed);
	KUNIT_EXPECT_EQ(test, 1, k->claims);
	KUNIT_EXPECT_EQ(test, KEVENT_REMOVED | KEVENT_ORPHAN,
			k->state & (KEVENT_REMOVED | KEVENT_ORPHAN));
	KUNIT_EXPECT_EQ(test, 0, kevents(test));
}

/* Begins a delivery and claims a first batch: how many events it has. */
static unsigned int claim(struct kunit *test, unsigned int max)
{
	struct kevent_scene *s = scene_of(test);

	kevent_delivery_begin(&s->d, s->user);
	return kevent_delivery_next(&s->d, max);
}

/* The kevent of the first event in hand. */
static struct kevent *claimed(struct kunit *test)
{
	return scene_of(test)->d.item[0]->kevent;
}

/* @nr of the batch have been copied: how many events are ready now. */
static unsigned long hand_over(struct kunit *test, unsigned int nr)
{
	struct kevent_scene *s = scene_of(test);

	return kevent_delivery_end(&s->d, nr);
}

static void nothing_is_left(struct kunit *test)
{
	unsigned int nr = claim(test, KEVENT_DELIVERY_BATCH);

	KUNIT_EXPECT_EQ(test, 0, nr);
	kevent_delivery_end(&scene_of(test)->d, nr);
}

static int kevent_scene_init(struct kunit *test)
{
	struct kevent_scene *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);

	if (!s)
		return -ENOMEM;
	test->priv = s;
	s->fake.test = test;
	init_waitqueue_head(&s->fake.wait);
	s->fake.fd = anon_inode_getfd("[eventfd]", &kevent_fake_fops, &s->fake,
				      O_RDWR | O_CLOEXEC);
	if (s->fake.fd < 0)
		return s->fake.fd;
	s->user = kevent_user_alloc();
	return s->user ? 0 : -ENOMEM;
}

/* A thread of the kernel puts off what fput() does. */
static void close_fake(struct kunit *test)
{
	struct kevent_fake *fake = &scene_of(test)->fake;

	__fput_sync(file_close_fd(fake->fd));
	fake->fd = -1;
}

static void kevent_scene_exit(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	if (!s)
		return;
	if (s->user)
		kevent_user_release(s->user);
	if (s->fake.fd >= 0)
		close_fake(test);
}

static void first_come_first_served_and_once(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_user(test, 1, 0);
	add_user(test, 2, 0);
	post(test, 2, 20);
	post(test, 1, 10);
	post(test, 2, 21);
	KUNIT_ASSERT_EQ(test, 2, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 2, s->d.event[0].ident);
	KUNIT_EXPECT_EQ(test, 2, s->d.event[0].count);
	KUNIT_EXPECT_EQ(test, 21, s->d.event[0].data);
	KUNIT_EXPECT_EQ(test, 1, s->d.event[1].ident);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 2));
	nothing_is_left(test);
}

static void what_was_not_copied_goes_back_to_the_head_in_order(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);
	u64 i;

	for (i = 1; i <= 4; i++) {
		add_user(test, i, 0);
		if (i < 4)
			post(test, i, i);
	}
	KUNIT_ASSERT_EQ(test, 3, claim(test, 16));
	/* joins the end, behind what is claimed */
	post(test, 4, 4);
	KUNIT_EXPECT_EQ(test, 3, hand_over(test, 1));
	KUNIT_ASSERT_EQ(test, 3, claim(test, 16));
	for (i = 0; i < 3; i++)
		KUNIT_EXPECT_EQ(test, i + 2, s->d.event[i].ident);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 3));
}

static void what_is_posted_under_a_claim_is_another_event(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_user(test, 1, 0);
	post(test, 1, 5);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	post(test, 1, 6);
	post(test, 1, 7);
	KUNIT_EXPECT_EQ(test, 1, hand_over(test, 1));
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 2, s->d.event[0].count);
	KUNIT_EXPECT_EQ(test, 7, s->d.event[0].data);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
}

static void what_is_posted_under_a_claim_that_fails_is_one_event(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_user(test, 1, 0);
	post(test, 1, 5);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	post(test, 1, 6);
	KUNIT_EXPECT_EQ(test, 1, hand_over(test, 0));
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 2, s->d.event[0].count);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
}

static void a_kevent_removed_under_a_claim_is_freed_by_it(struct kunit *test)
{
	struct kevent *k;

	add_user(test, 1, 0);
	post(test, 1, 5);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	k = claimed(test);
	count_free(k);
	remove(test, KEVENT_USER, 1);
	only_the_claim_is_left(test, k);
	/* the same number again is another kevent */
	add_user(test, 1, 0);
	KUNIT_EXPECT_EQ(test, 0, freed);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, 1, freed);
	KUNIT_EXPECT_EQ(test, 1, kevents(test));
	nothing_is_left(test);
}

static void a_kevent_removed_under_a_claim_that_fails_is_not_put_back(struct kunit *test)
{
	struct kevent *k;

	add_user(test, 1, 0);
	post(test, 1, 5);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	k = claimed(test);
	count_free(k);
	remove(test, KEVENT_USER, 1);
	only_the_claim_is_left(test, k);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 0));
	KUNIT_EXPECT_EQ(test, 1, freed);
	nothing_is_left(test);
}

static void a_kevent_removed_under_a_claim_does_not_outlive_its_batch(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_user(test, 1, 0);
	add_user(test, 2, 0);
	post(test, 1, 5);
	post(test, 2, 6);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 1));
	count_free(claimed(test));
	remove(test, KEVENT_USER, 1);
	KUNIT_EXPECT_EQ(test, 0, freed);
	kevent_delivery_done(&s->d, 1);
	KUNIT_EXPECT_EQ(test, 1, freed);
	KUNIT_ASSERT_EQ(test, 1, kevent_delivery_next(&s->d, 1));
	KUNIT_EXPECT_EQ(test, 2, s->d.event[0].ident);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, 1, freed);
	nothing_is_left(test);
}

static void one_shot_ends_with_its_delivery_and_not_before(struct kunit *test)
{
	add_user(test, 1, KEVENT_ONESHOT);
	post(test, 1, 5);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 1, hand_over(test, 0));
	KUNIT_EXPECT_EQ(test, 1, kevents(test));
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, KEVENT_EVENT_LAST,
			scene_of(test)->d.event[0].flags);
	count_free(claimed(test));
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, 1, freed);
	KUNIT_EXPECT_EQ(test, 0, kevents(test));
}

static void one_shot_that_is_modified_under_a_claim_lives_on(struct kunit *test)
{
	add_user(test, 1, KEVENT_ONESHOT);
	post(test, 1, 5);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	modify(test, KEVENT_USER, 1, KEVENT_USER_POSTED, KEVENT_ONESHOT);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, 1, kevents(test));
	nothing_is_left(test);
	/* and has one more to deliver */
	post(test, 1, 6);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 6, scene_of(test)->d.event[0].data);
	KUNIT_EXPECT_EQ(test, 1, scene_of(test)->d.event[0].count);
	KUNIT_EXPECT_EQ(test, KEVENT_EVENT_LAST,
			scene_of(test)->d.event[0].flags);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, 0, kevents(test));
}

static void one_shot_takes_no_posting_once_its_event_is_settled(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_user(test, 1, KEVENT_ONESHOT);
	post(test, 1, 5);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, -ENOENT, kevent_post(s->user, 1, 6));
	/* nobody was told of the event: it may say more the next time */
	KUNIT_EXPECT_EQ(test, 1, hand_over(test, 0));
	post(test, 1, 7);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 7, s->d.event[0].data);
	KUNIT_EXPECT_EQ(test, 2, s->d.event[0].count);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, -ENOENT, kevent_post(s->user, 1, 8));
}

static void one_shot_takes_postings_until_its_event_is_settled(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_user(test, 1, KEVENT_ONESHOT);
	add_user(test, 2, KEVENT_ONESHOT);
	post(test, 1, 5);
	post(test, 2, 5);
	kevent_delivery_begin(&s->d, s->user);
	/* claimed, both of them, and nothing is said of them so far */
	KUNIT_ASSERT_TRUE(test, kevent_delivery_claim(&s->d, 2));
	post(test, 1, 6);
	KUNIT_ASSERT_EQ(test, 1, kevent_delivery_next(&s->d, 1));
	KUNIT_EXPECT_EQ(test, 1, s->d.event[0].ident);
	KUNIT_EXPECT_EQ(test, 6, s->d.event[0].data);
	KUNIT_EXPECT_EQ(test, 2, s->d.event[0].count);
	KUNIT_EXPECT_EQ(test, -ENOENT, kevent_post(s->user, 1, 7));
	post(test, 2, 8);
	kevent_delivery_done(&s->d, 1);
	KUNIT_ASSERT_EQ(test, 1, kevent_delivery_next(&s->d, 1));
	KUNIT_EXPECT_EQ(test, 2, s->d.event[0].count);
	KUNIT_EXPECT_EQ(test, 8, s->d.event[0].data);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, 0, kevents(test));
}

static void one_shot_takes_postings_again_once_it_is_modified(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_user(test, 1, KEVENT_ONESHOT);
	post(test, 1, 5);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, -ENOENT, kevent_post(s->user, 1, 6));
	modify(test, KEVENT_USER, 1, KEVENT_USER_POSTED, KEVENT_ONESHOT);
	post(test, 1, 7);
	/* it lives on, so what was posted is an event of its own */
	KUNIT_EXPECT_EQ(test, 1, hand_over(test, 1));
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 7, s->d.event[0].data);
	KUNIT_EXPECT_EQ(test, 1, s->d.event[0].count);
	KUNIT_EXPECT_EQ(test, KEVENT_EVENT_LAST, s->d.event[0].flags);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, 0, kevents(test));
}

static void dispatch_sleeps_after_its_delivery_until_modified(struct kunit *test)
{
	add_user(test, 1, KEVENT_DISPATCH);
	post(test, 1, 5);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	post(test, 1, 6);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	nothing_is_left(test);
	modify(test, KEVENT_USER, 1, KEVENT_USER_POSTED, KEVENT_DISPATCH);
	KUNIT_EXPECT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
}

static void level_is_reported_once_by_each_delivery(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_fake(test, 0);
	fake_active(test, EPOLLIN);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	kevent_delivery_done(&s->d, 1);
	KUNIT_EXPECT_EQ(test, 0, kevent_delivery_next(&s->d, 16));
	KUNIT_EXPECT_EQ(test, 1, kevent_delivery_end(&s->d, 0));
	KUNIT_EXPECT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 1, hand_over(test, 1));
}

static void a_condition_that_is_over_is_not_delivered(struct kunit *test)
{
	add_fake(test, 0);
	fake_active(test, EPOLLIN);
	scene_of(test)->fake.events = 0;
	nothing_is_left(test);
	fake_active(test, EPOLLIN);
	KUNIT_EXPECT_EQ(test, 1, claim(test, 16));
	hand_over(test, 1);
}

static void meddle_wake(struct kunit *test)
{
	fake_active(test, EPOLLIN);
}

static void edge_that_comes_while_it_is_asked_is_another_report(struct kunit *test)
{
	add_fake(test, KEVENT_EDGE);
	fake_active(test, EPOLLIN);
	scene_of(test)->fake.meddle = meddle_wake;
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 1, hand_over(test, 1));
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
}

static void meddle_quiet(struct kunit *test)
{
	fake_active(test, 0);
}

static void a_wake_up_while_it_is_found_to_be_over_is_not_lost(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_fake(test, 0);
	fake_active(test, EPOLLIN);
	/* over when it is asked, and called at the same time */
	s->fake.meddle = meddle_quiet;
	KUNIT_EXPECT_EQ(test, 0, claim(test, 16));
	kevent_delivery_end(&s->d, 0);
	s->fake.events = EPOLLIN;
	KUNIT_EXPECT_EQ(test, 1, claim(test, 16));
	hand_over(test, 1);
}

/* Nothing is in @d yet: it is the only one of the queue. */
static void meddle_remove(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);
	struct kevent *k = rb_entry(s->user->tree.rb_node, struct kevent, node);

	count_free(k);
	remove(test, KEVENT_POLL, s->fake.fd);
	only_the_claim_is_left(test, k);
}

static void a_kevent_can_be_removed_while_its_file_is_asked(struct kunit *test)
{
	add_fake(test, 0);
	fake_active(test, EPOLLIN);
	scene_of(test)->fake.meddle = meddle_remove;
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 0, freed);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, 1, freed);
	KUNIT_EXPECT_EQ(test, 0, kevents(test));
	nothing_is_left(test);
}

static void a_kevent_removed_while_it_is_found_to_be_over_is_freed_at_once(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_fake(test, 0);
	fake_active(test, EPOLLIN);
	s->fake.events = 0;
	s->fake.meddle = meddle_remove;
	KUNIT_EXPECT_EQ(test, 0, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 1, freed);
	KUNIT_EXPECT_EQ(test, 0, kevent_delivery_end(&s->d, 0));
	KUNIT_EXPECT_EQ(test, 1, freed);
	KUNIT_EXPECT_EQ(test, 0, kevents(test));
}

static void meddle_disable(struct kunit *test)
{
	modify(test, KEVENT_POLL, scene_of(test)->fake.fd, POLLIN,
	       KEVENT_DISABLED);
}

static void a_kevent_disabled_while_its_file_is_asked_sleeps_after_that(struct kunit *test)
{
	add_fake(test, 0);
	fake_active(test, EPOLLIN);
	scene_of(test)->fake.meddle = meddle_disable;
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	nothing_is_left(test);
}

static void a_close_under_a_claim_is_reported_afterwards(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	if (kevent_close_pinned() & KEVENT_FILE_ANON)
		kunit_skip(test, "this kernel does not show the close");
	add_fake(test, KEVENT_NOTIFY_BROKEN);
	fake_active(test, EPOLLIN);
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	close_fake(test);
	KUNIT_EXPECT_EQ(test, 1, hand_over(test, 1));
	KUNIT_ASSERT_EQ(test, 1, claim(test, 16));
	KUNIT_EXPECT_EQ(test, KEVENT_EVENT_BROKEN | KEVENT_EVENT_LAST,
			s->d.event[0].flags);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 1));
	KUNIT_EXPECT_EQ(test, 0, kevents(test));
}

static unsigned int told;

static int count_told(wait_queue_entry_t *wait, unsigned int mode, int sync,
		      void *key)
{
	told++;
	return 0;
}

/* Somebody who does not wait comes while somebody else looks. */
static void meddle_look(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, kevent_is_empty(scene_of(test)->user));
}

/* The same, by who had found something ready that is claimed by now. */
static void meddle_deliver(struct kunit *test)
{
	nothing_is_left(test);
}

static void what_is_claimed_while_others_look_is_told_once_more(struct kunit *test)
{
	static void (*const others[])(struct kunit *test) = {
		meddle_look, meddle_deliver,
	};
	struct kevent_scene *s = scene_of(test);
	wait_queue_entry_t wait;
	unsigned int i;

	init_waitqueue_func_entry(&wait, count_told);
	add_wait_queue(&s->user->poll_wait, &wait);
	add_fake(test, 0);
	/* who polls asks it, as a pipe, which is no queue of events */
	rb_entry(s->user->tree.rb_node, struct kevent, node)->nested = false;
	fake_active(test, EPOLLIN);
	irq_work_sync(&s->user->poll_work);
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		told = 0;
		s->fake.meddle = others[i];
		KUNIT_EXPECT_TRUE(test, kevent_has_ready(s->user, 1));
		irq_work_sync(&s->user->poll_work);
		KUNIT_EXPECT_EQ(test, 1, told);
		/* nobody has looked in vain */
		KUNIT_EXPECT_TRUE(test, kevent_has_ready(s->user, 1));
		irq_work_sync(&s->user->poll_work);
		KUNIT_EXPECT_EQ(test, 1, told);
	}
	remove_wait_queue(&s->user->poll_wait, &wait);
}

static void min_events_are_claimed_all_or_none(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_user(test, 1, 0);
	add_user(test, 2, 0);
	post(test, 1, 1);
	kevent_delivery_begin(&s->d, s->user);
	KUNIT_EXPECT_FALSE(test, kevent_delivery_claim(&s->d, 2));
	KUNIT_EXPECT_EQ(test, 1, kevent_delivery_end(&s->d, 0));
	post(test, 2, 2);
	kevent_delivery_begin(&s->d, s->user);
	KUNIT_EXPECT_TRUE(test, kevent_delivery_claim(&s->d, 2));
	/* so nobody else finds them */
	KUNIT_EXPECT_FALSE(test, kevent_has_ready(s->user, 1));
	KUNIT_EXPECT_EQ(test, 2, kevent_delivery_next(&s->d, 16));
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 2));
}

static void what_is_modified_before_its_event_is_settled_ends_with_it(struct kunit *test)
{
	struct kevent_scene *s = scene_of(test);

	add_user(test, 1, 0);
	add_user(test, 2, 0);
	post(test, 1, 1);
	post(test, 2, 2);
	kevent_delivery_begin(&s->d, s->user);
	KUNIT_EXPECT_TRUE(test, kevent_delivery_claim(&s->d, 2));
	modify(test, KEVENT_USER, 2, KEVENT_USER_POSTED, KEVENT_ONESHOT);
	post(test, 2, 3);
	KUNIT_EXPECT_EQ(test, 2, kevent_delivery_next(&s->d, 16));
	KUNIT_EXPECT_EQ(test, 3, s->d.event[1].data);
	KUNIT_EXPECT_EQ(test, KEVENT_EVENT_LAST, s->d.event[1].flags);
	KUNIT_EXPECT_EQ(test, 0, hand_over(test, 2));
	KUNIT_EXPECT_EQ(test, 1, kevents(test));
}

static void times_that_cannot_be_told_are_refused(struct kunit *test)
{
	clockid_t base;
	ktime_t at;

	KUNIT_EXPECT_EQ(test, 0, kevent_time(KTIME_MAX, CLOCK_MONOTONIC, true,
					     &at, &base));
	KUNIT_EXPECT_EQ(test, KTIME_MAX, at);
	KUNIT_EXPECT_EQ(test, -EINVAL,
			kevent_time((u64)KTIME_MAX + 1, CLOCK_MONOTONIC, true,
				    &at, &base));
	KUNIT_EXPECT_EQ(test, -EINVAL, kevent_time(KTIME_MAX, CLOCK_MONOTONIC,
						   false, &at, &base));
	KUNIT_EXPECT_EQ(test, -EINVAL, kevent_time(1, CLOCK_TAI, false, &at,
						   &base));
	KUNIT_EXPECT_EQ(test, 0, kevent_time(1, CLOCK_REALTIME, false, &at,
					     &base));
	/* a span does not move when somebody sets the clock */
	KUNIT_EXPECT_EQ(test, CLOCK_MONOTONIC, base);
	KUNIT_EXPECT_EQ(test, 0, kevent_time(1, CLOCK_REALTIME, true, &at,
					     &base));
	KUNIT_EXPECT_EQ(test, CLOCK_REALTIME, base);
}

static struct kunit_case kevent_cases[] = {
	KUNIT_CASE(first_come_first_served_and_once),
	KUNIT_CASE(what_was_not_copied_goes_back_to_the_head_in_order),
	KUNIT_CASE(what_is_posted_under_a_claim_is_another_event),
	KUNIT_CASE(what_is_posted_under_a_claim_that_fails_is_one_event),
	KUNIT_CASE(a_kevent_removed_under_a_claim_is_freed_by_it),
	KUNIT_CASE(a_kevent_removed_under_a_claim_that_fails_is_not_put_back),
	KUNIT_CASE(a_kevent_removed_under_a_claim_does_not_outlive_its_batch),
	KUNIT_CASE(one_shot_ends_with_its_delivery_and_not_before),
	KUNIT_CASE(one_shot_that_is_modified_under_a_claim_lives_on),
	KUNIT_CASE(one_shot_takes_no_posting_once_its_event_is_settled),
	KUNIT_CASE(one_shot_takes_postings_until_its_event_is_settled),
	KUNIT_CASE(one_shot_takes_postings_again_once_it_is_modified),
	KUNIT_CASE(dispatch_sleeps_after_its_delivery_until_modified),
	KUNIT_CASE(level_is_reported_once_by_each_delivery),
	KUNIT_CASE(a_condition_that_is_over_is_not_delivered),
	KUNIT_CASE(edge_that_comes_while_it_is_asked_is_another_report),
	KUNIT_CASE(a_wake_up_while_it_is_found_to_be_over_is_not_lost),
	KUNIT_CASE(a_kevent_can_be_removed_while_its_file_is_asked),
	KUNIT_CASE(a_kevent_removed_while_it_is_found_to_be_over_is_freed_at_once),
	KUNIT_CASE(a_kevent_disabled_while_its_file_is_asked_sleeps_after_that),
	KUNIT_CASE(a_close_under_a_claim_is_reported_afterwards),
	KUNIT_CASE(what_is_claimed_while_others_look_is_told_once_more),
	KUNIT_CASE(min_events_are_claimed_all_or_none),
	KUNIT_CASE(what_is_modified_before_its_event_is_settled_ends_with_it),
	KUNIT_CASE(times_that_cannot_be_told_are_refused),
	{}
};

static struct kunit_suite kevent_suite = {
	.name = "kevent",
	.init = kevent_scene_init,
	.exit = kevent_scene_exit,
	.test_cases = kevent_cases,
};

kunit_test_suite(kevent_suite);
