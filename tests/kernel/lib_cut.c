// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Arguments that lie across two pages, of which one is good.
 */
#include "lib.h"

#include <string.h>
#include <sys/mman.h>

bool cut_next(struct cut *cut, unsigned int i, size_t size)
{
	size_t offs = (size - 1) / 4;

	*cut = (struct cut){
		.off = 4 * (i % offs + 1),
		.head = i / offs & 1,
		.prot = i / offs & 2 ? PROT_READ : PROT_NONE,
	};
	return i < 4 * offs;
}

const char *cut_name(const struct cut *cut)
{
	if (cut->prot == PROT_NONE)
		return cut->head ? "missing before" : "missing from";
	return cut->head ? "read-only before" : "read-only from";
}

void *cut_place(const struct cut *cut, const void *arg, size_t size)
{
	static char *mem;

	if (mem)
		SYS(munmap(mem, 2 * PAGE));
	mem = two_pages();
	memcpy(mem + PAGE - cut->off, arg, size);
	SYS(mprotect(mem + (cut->head ? 0 : PAGE), PAGE, cut->prot));
	return mem + PAGE - cut->off;
}

void cut_look_back(const struct cut *cut, void *at, void *arg, size_t size)
{
	char *page = (char *)at + cut->off - (cut->head ? PAGE : 0);

	SYS(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
	memcpy(arg, at, size);
}

bool cut_refuses(const struct cut *cut, const struct touch *touch)
{
	unsigned int i;

	if (cut->prot == PROT_NONE || touch->all)
		return cut->head || cut->off < touch->size;
	for (i = 0; i < TOUCH_WRITES && touch->writes[i]; i++)
		if (cut->head ? touch->writes[i] < cut->off :
				touch->writes[i] >= cut->off)
			return true;
	return false;
}
