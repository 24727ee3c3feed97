/*
 * What wrong behaviours need again and again: copies of templates, and sets of handles.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <string.h>

#include "wrong.h"

static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;

static CK_ULONG *handles_find(struct handles *handles, CK_ULONG handle)
{
	const size_t room = sizeof handles->list / sizeof *handles->list;

	for (size_t i = 0; i < room && i < handles->count; i++) {
		if (handles->list[i] == handle)
			return &handles->list[i];
	}
	return NULL;
}

void handles_add(struct handles *handles, CK_ULONG handle)
{
	const size_t room = sizeof handles->list / sizeof *handles->list;

	pthread_mutex_lock(&handles_lock);
	if (handles_find(handles, handle) == NULL)
		handles->list[handles->count++ % room] = handle;
	pthread_mutex_unlock(&handles_lock);
}

void handles_remove(struct handles *handles, CK_ULONG handle)
{
	CK_ULONG *found;

	pthread_mutex_lock(&handles_lock);
	found = handles_find(handles, handle);
	if (found != NULL)
		*found = 0; /* CK_INVALID_HANDLE */
	pthread_mutex_unlock(&handles_lock);
}

bool handles_have(struct handles *handles, CK_ULONG handle)
{
	bool have;

	pthread_mutex_lock(&handles_lock);
	have = handle != 0 && handles_find(handles, handle) != NULL;
	pthread_mutex_unlock(&handles_lock);
	return have;
}

CK_ULONG template_copy(const struct call *call, int argument, struct ck_attribute copy[MAX_ATTRIBUTES])
{
	CK_ULONG count = call->words[argument + 1];

	if (call->words[argument] == 0 || count > MAX_ATTRIBUTES)
		return 0;
	memcpy(copy, pointer(call->words[argument]), count * sizeof *copy);
	return count;
}

struct ck_attribute *template_find(struct ck_attribute *list, CK_ULONG count, CK_ULONG type)
{
	for (; count > 0; count--, list++) {
		if (list->type == type)
			return list;
	}
	return NULL;
}

bool template_says(struct ck_attribute *list, CK_ULONG count, CK_ULONG type, bool value)
{
	const struct ck_attribute *found = template_find(list, count, type);

	return found != NULL && found->value != NULL && found->length == 1 &&
	       (*(const unsigned char *)found->value != 0) == value;
}

CK_ULONG template_drop(struct ck_attribute *list, CK_ULONG count, CK_ULONG type)
{
	struct ck_attribute *found = template_find(list, count, type);

	if (found == NULL)
		return count;
	memmove(found, found + 1, (size_t)(list + count - (found + 1)) * sizeof *list);
	return count - 1;
}

CK_RV pass_with(struct call *call, int argument, struct ck_attribute *list, CK_ULONG count)
{
	CK_ULONG words[WORDS];

	memcpy(words, call->words, sizeof words);
	words[argument] = (CK_ULONG)list;
	words[argument + 1] = count;
	return invoke(call->family, call->function, words);
}
