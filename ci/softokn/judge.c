/*
 * A PKCS#11 module for programs that can only call C_Initialize(NULL), such as pkcs11-tool.
 *
 * NSS softokn refuses NULL: it wants to be told where its database is, in a string that travels behind the
 * initialisation arguments.  This module hands out softokn's own functions and adds the string on the way.
 * It needs nothing from the environment: the build defines
 *   TARGET_MODULE  path of the module that does the work
 *   TARGET_ARGS    the string for it
 */
#include <dlfcn.h>
#include <stddef.h>

#include <p11-kit/pkcs11.h>

/* Where the standard has pReserved, NSS has LibraryParameters, and it reads one more word, which must be NULL. */
struct nss_initialize_args {
	CK_C_INITIALIZE_ARGS standard;
	void *must_be_null;
};

static CK_FUNCTION_LIST *target;
static CK_FUNCTION_LIST ours;

static CK_RV initialize(void *given)
{
	static char text[] = TARGET_ARGS;
	struct nss_initialize_args args = { .standard.flags = CKF_OS_LOCKING_OK };

	if (given != NULL)
		args.standard = *(CK_C_INITIALIZE_ARGS *)given;
	args.standard.pReserved = text;
	return target->C_Initialize(&args);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
	CK_RV (*entry)(CK_FUNCTION_LIST **);
	void *library;
	CK_RV rv;

	if (list == NULL)
		return CKR_ARGUMENTS_BAD;
	if (target == NULL) {
		library = dlopen(TARGET_MODULE, RTLD_NOW | RTLD_LOCAL);
		if (library == NULL)
			return CKR_GENERAL_ERROR;
		entry = (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(library, "C_GetFunctionList");
		if (entry == NULL)
			return CKR_GENERAL_ERROR;
		rv = entry(&target);
		if (rv != CKR_OK)
			return rv;
		ours = *target;
		ours.C_Initialize = initialize;
		ours.C_GetFunctionList = C_GetFunctionList;
	}
	*list = &ours;
	return CKR_OK;
}
