/*
 * A PKCS#11 module that passes every call on to another one, writes a journal, and does harm where it is told to.
 *
 * Environment, read once, when the first list is asked for:
 *   HSMBRIDGE_SHIM_MODULE   path of the real module
 *   HSMBRIDGE_SHIM_JOURNAL  file that gets two lines for each call (journal.c); none: no journal
 *   HSMBRIDGE_SHIM_ACTIONS  rules such as C_UnwrapKey#2=after:0x30 (actions.c)
 *   HSMBRIDGE_SHIM_ARMED    path: calls are counted, and rules apply, from when this file exists; none: from the start
 *   HSMBRIDGE_SHIM_WRONG    name of a wrong behaviour (wrong.c)
 * If one of them makes no sense, C_GetFunctionList returns CKR_ARGUMENTS_BAD and stderr says why.
 *
 * Lists of v2.40, 3.0 and 3.2 are copies of the real ones with a thunk in place of each function.  The functions that
 * hand out lists are neither counted nor written down.
 */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shim.h"

#define EXPORT __attribute__((visibility("default")))
#define STANDARD "PKCS 11"
#define COUNT_2_40 (F_C_WaitForSlotEvent + 1)
#define COUNT_3_0 (F_C_MessageVerifyFinal + 1)

/* CK_INTERFACE */
struct interface {
	const char *name;
	struct list *list;
	CK_ULONG flags;
};

static CK_RV ready = CKR_GENERAL_ERROR;
static void *module;

static struct list ours[FAMILY_COUNT];
static struct interface interfaces[FAMILY_COUNT];
static pthread_mutex_t lists_lock = PTHREAD_MUTEX_INITIALIZER;

void complain(const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	fprintf(stderr, "hsmbridge-shim: error: %s\n", text);
}

EXPORT CK_RV C_GetFunctionList(struct list **list);
EXPORT CK_RV C_GetInterfaceList(struct interface *list, CK_ULONG *count);
EXPORT CK_RV C_GetInterface(const char *name, const unsigned char version[2], struct interface **found, CK_ULONG flags);

static enum family family_of(const struct list *list)
{
	if (list->version[0] < 3)
		return V2_40;
	return list->version[0] == 3 && list->version[1] < 2 ? V3_0 : V3_2;
}

/* Copy a list of the real module's, once; a function that it lacks is lacking in ours. */
static void adopt(const struct list *list, enum family family)
{
	static const int lengths[FAMILY_COUNT] = { COUNT_2_40, COUNT_3_0, FUNCTION_COUNT };
	static const unsigned char newest[] = { 3, 2 };
	struct list *copy = &ours[family];

	pthread_mutex_lock(&lists_lock);
	if (real_lists[family] == NULL) {
		memcpy(copy->version, list->version, sizeof copy->version);
		if (memcmp(copy->version, newest, sizeof newest) > 0)
			memcpy(copy->version, newest, sizeof newest); /* of a longer list we know the beginning */
		for (int i = 0; i < lengths[family]; i++)
			copy->functions[i] = list->functions[i] == NULL ? NULL : (any_function)thunks[family][i];
		copy->functions[F_C_GetFunctionList] = (any_function)C_GetFunctionList;
		if (family != V2_40) {
			copy->functions[F_C_GetInterfaceList] = (any_function)C_GetInterfaceList;
			copy->functions[F_C_GetInterface] = (any_function)C_GetInterface;
		}
		real_lists[family] = list;
	}
	pthread_mutex_unlock(&lists_lock);
}

/* ---- start */

static bool configure(void)
{
	const char *path = getenv("HSMBRIDGE_SHIM_MODULE");
	const char *journal = getenv("HSMBRIDGE_SHIM_JOURNAL");
	const char *actions = getenv("HSMBRIDGE_SHIM_ACTIONS");
	const char *behaves = getenv("HSMBRIDGE_SHIM_WRONG");
	const char *arming = getenv("HSMBRIDGE_SHIM_ARMED");

	if (path == NULL || *path == '\0') {
		complain("HSMBRIDGE_SHIM_MODULE: the path of the real module is missing");
		return false;
	}
	if (actions != NULL && !actions_parse(actions))
		return false;
	if (behaves != NULL && *behaves != '\0' && (misbehaviour = wrong_find(behaves)) == NULL)
		return false;
	if (arming != NULL && *arming != '\0' && (armed_by = strdup(arming)) == NULL)
		return false;
	if (journal != NULL && *journal != '\0' && !journal_open(journal))
		return false;
	module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (module == NULL)
		complain("HSMBRIDGE_SHIM_MODULE: %s", dlerror());
	return module != NULL;
}

static void start(void)
{
	CK_RV (*entry)(struct list **);
	struct list *list = NULL;

	ready = CKR_ARGUMENTS_BAD;
	if (!configure())
		return;
	*(void **)&entry = dlsym(module, "C_GetFunctionList");
	if (entry == NULL) {
		complain("HSMBRIDGE_SHIM_MODULE: not a PKCS#11 module: it has no C_GetFunctionList");
		return;
	}
	ready = entry(&list);
	if (ready == CKR_OK)
		adopt(list, V2_40); /* this function hands out lists of that length, whatever the version says */
}

static CK_RV started(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, start);
	return ready;
}

CK_RV C_GetFunctionList(struct list **list)
{
	CK_RV rv = started();

	if (rv == CKR_OK && list == NULL)
		rv = CKR_ARGUMENTS_BAD;
	if (rv == CKR_OK)
		*list = &ours[V2_40];
	return rv;
}

/* An interface of the real module's, with our list in it; a vendor's own interfaces are handed out as they are. */
static struct interface *shimmed(struct interface *given)
{
	struct interface *interface;
	enum family family;

	if (strcmp(given->name, STANDARD) != 0)
		return given;
	family = family_of(given->list);
	adopt(given->list, family);
	interface = &interfaces[family];
	*interface = (struct interface){ STANDARD, &ours[family], given->flags };
	return interface;
}

CK_RV C_GetInterfaceList(struct interface *list, CK_ULONG *count)
{
	CK_RV (*entry)(struct interface *, CK_ULONG *);
	CK_RV rv = started();
	CK_ULONG room;

	if (rv != CKR_OK)
		return rv;
	*(void **)&entry = dlsym(module, "C_GetInterfaceList");
	if (entry != NULL) {
		rv = entry(list, count);
		for (CK_ULONG i = 0; rv == CKR_OK && list != NULL && i < *count; i++)
			list[i] = *shimmed(&list[i]);
		return rv;
	}
	/* The real module is of v2.40: we have its one list. */
	if (count == NULL)
		return CKR_ARGUMENTS_BAD;
	room = *count;
	*count = 1;
	if (list == NULL)
		return CKR_OK;
	if (room < 1)
		return CKR_BUFFER_TOO_SMALL;
	list[0] = (struct interface){ STANDARD, &ours[V2_40], 0 };
	return CKR_OK;
}

CK_RV C_GetInterface(const char *name, const unsigned char version[2], struct interface **found, CK_ULONG flags)
{
	CK_RV (*entry)(const char *, const unsigned char *, struct interface **, CK_ULONG);
	CK_RV rv = started();

	if (rv != CKR_OK)
		return rv;
	if (found == NULL)
		return CKR_ARGUMENTS_BAD;
	*(void **)&entry = dlsym(module, "C_GetInterface");
	if (entry != NULL) {
		rv = entry(name, version, found, flags);
		if (rv == CKR_OK)
			*found = shimmed(*found);
		return rv;
	}
	if ((name != NULL && strcmp(name, STANDARD) != 0) || flags != 0 ||
	    (version != NULL && memcmp(version, ours[V2_40].version, sizeof ours[V2_40].version) != 0))
		return CKR_FUNCTION_FAILED;
	interfaces[V2_40] = (struct interface){ STANDARD, &ours[V2_40], 0 };
	*found = &interfaces[V2_40];
	return CKR_OK;
}
