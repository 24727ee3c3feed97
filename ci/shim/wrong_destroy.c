/*
 * Wrong C_DestroyObject(session, object).
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <string.h>

#include "wrong.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

CK_RV destroy_does_nothing(struct call *call)
{
	return call->function == F_C_DestroyObject ? CKR_OK : PASS(call);
}

/* Tell the handles of the objects that a call has just made to a function. */
static void each_new_object(const struct call *call, void (*tell)(CK_ULONG *handle))
{
	const char *kinds = function_arguments[call->function];

	for (int i = 0; kinds[i] != '\0'; i++) {
		if (kinds[i] == 'n' && call->words[i] != 0)
			tell(output(call, i));
	}
}

static CK_ULONG made[8192]; /* the objects that the process made, in that order; 0 for one that is gone */
static size_t made_count;

static void note_made(CK_ULONG *handle)
{
	if (made_count < sizeof made / sizeof *made)
		made[made_count++] = *handle;
}

/* With an object goes the one that the process made next. */
CK_RV destroys_neighbour(struct call *call)
{
	CK_RV rv = PASS(call);
	CK_ULONG neighbour = 0;

	if (rv != CKR_OK)
		return rv;
	pthread_mutex_lock(&lock);
	each_new_object(call, note_made);
	for (size_t i = 0; call->function == F_C_DestroyObject && i < made_count; i++) {
		if (made[i] != call->words[1])
			continue;
		made[i] = 0;
		if (i + 1 < made_count) {
			neighbour = made[i + 1];
			made[i + 1] = 0;
		}
		break;
	}
	pthread_mutex_unlock(&lock);
	if (neighbour != 0)
		REAL(call, C_DestroyObject, call->words[0], neighbour);
	return rv;
}

/* What the application calls an object, and what the real module calls it, where these differ. */
static struct {
	CK_ULONG shown, real;
} aliases[1024];
static size_t alias_count;
static CK_ULONG free_handle; /* of the object that was destroyed last */

static CK_ULONG real_handle(CK_ULONG shown)
{
	for (size_t i = 0; i < alias_count; i++) {
		if (aliases[i].shown == shown)
			return aliases[i].real;
	}
	return shown;
}

static void show_again(CK_ULONG *handle)
{
	for (size_t i = 0; i < alias_count; i++) {
		if (aliases[i].real == *handle) {
			*handle = aliases[i].shown;
			return;
		}
	}
}

static void reuse_handle(CK_ULONG *handle)
{
	if (free_handle == 0 || alias_count == sizeof aliases / sizeof *aliases)
		return;
	aliases[alias_count].shown = free_handle;
	aliases[alias_count++].real = *handle;
	*handle = free_handle;
	free_handle = 0;
}

static void release_handle(CK_ULONG shown)
{
	for (size_t i = 0; i < alias_count; i++) {
		if (aliases[i].shown == shown)
			aliases[i] = aliases[--alias_count];
	}
	free_handle = shown;
}

/* The handle of a destroyed object stands for the next one that is made. */
CK_RV reuses_handles(struct call *call)
{
	const char *kinds = function_arguments[call->function];
	CK_ULONG words[WORDS], *found = NULL;
	int finds = argument(call->function, 'H');
	CK_RV rv;

	memcpy(words, call->words, sizeof words);
	pthread_mutex_lock(&lock);
	for (int i = 0; kinds[i] != '\0'; i++) {
		if (strchr("okw", kinds[i]) != NULL)
			words[i] = real_handle(words[i]);
	}
	pthread_mutex_unlock(&lock);
	rv = invoke(call->family, call->function, words);
	if (rv != CKR_OK)
		return rv;
	pthread_mutex_lock(&lock);
	if (call->function == F_C_DestroyObject)
		release_handle(call->words[1]);
	each_new_object(call, reuse_handle);
	if (finds >= 0)
		found = output(call, finds);
	for (CK_ULONG i = 0; found != NULL && i < *output(call, finds + 2); i++)
		show_again(&found[i]);
	pthread_mutex_unlock(&lock);
	return rv;
}
