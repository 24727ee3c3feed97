/*
 * NSS softokn's FIPS token as a PKCS#11 module of its own.
 *
 * libsoftokn3.so holds two tokens behind two entry points: C_GetFunctionList (no restrictions) and
 * FC_GetFunctionList (FIPS 140 mode).  A PKCS#11 program asks for the first name only, so this module answers
 * to it with the second list.  The initialisation arguments are not touched.
 *
 * The build defines SOFTOKN_MODULE, the path of libsoftokn3.so.  It is opened here instead of being linked: were
 * it linked, a program that looks up C_Initialize by name would find softokn's unrestricted one.
 */
#include <dlfcn.h>
#include <stddef.h>

#include <p11-kit/pkcs11.h>

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
	CK_RV (*fips_entry)(CK_FUNCTION_LIST **);
	void *softokn = dlopen(SOFTOKN_MODULE, RTLD_NOW | RTLD_LOCAL);

	if (softokn == NULL)
		return CKR_GENERAL_ERROR;
	fips_entry = (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(softokn, "FC_GetFunctionList");
	if (fips_entry == NULL)
		return CKR_GENERAL_ERROR;
	return fips_entry(list);
}
