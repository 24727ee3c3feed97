/*
 * Every function of a PKCS#11 function list, in the list's order, with its arguments: one letter for each.
 *
 *   s  session          m  mechanism (pointer)       n  where the new object's handle goes
 *   t  slot             T  template (pointer)        N  where the new session's handle goes
 *   o  object           A  attributes to be read     H  where the handles that were found go
 *   k  key              b  output buffer             c  where the number of them goes
 *   w  wrapping key     L  its length (pointer)      l  its length
 *   .  anything else: never looked at, and never written to the journal
 *
 * An argument not listed here can hold a PIN, data or a key.
 *
 * Source: PKCS#11 v2.40, v3.0 and v3.2, pkcs11f.h.
 */

#define FUNCTIONS_2_40(X)                                                                                              \
	X(C_Initialize, ".") X(C_Finalize, ".") X(C_GetInfo, ".") X(C_GetFunctionList, ".")                            \
	X(C_GetSlotList, "...") X(C_GetSlotInfo, "t.") X(C_GetTokenInfo, "t.")                                         \
	X(C_GetMechanismList, "t..") X(C_GetMechanismInfo, "t..")                                                      \
	X(C_InitToken, "t...") X(C_InitPIN, "s..") X(C_SetPIN, "s....")                                                \
	X(C_OpenSession, "t...N") X(C_CloseSession, "s") X(C_CloseAllSessions, "t") X(C_GetSessionInfo, "s.")          \
	X(C_GetOperationState, "sbL") X(C_SetOperationState, "s..kk")                                                  \
	X(C_Login, "s...") X(C_Logout, "s")                                                                            \
	X(C_CreateObject, "sT.n") X(C_CopyObject, "soT.n") X(C_DestroyObject, "so") X(C_GetObjectSize, "so.")          \
	X(C_GetAttributeValue, "soA.") X(C_SetAttributeValue, "soT.")                                                  \
	X(C_FindObjectsInit, "sT.") X(C_FindObjects, "sH.c") X(C_FindObjectsFinal, "s")                                \
	X(C_EncryptInit, "smk") X(C_Encrypt, "s..bL") X(C_EncryptUpdate, "s..bL") X(C_EncryptFinal, "sbL")             \
	X(C_DecryptInit, "smk") X(C_Decrypt, "s..bL") X(C_DecryptUpdate, "s..bL") X(C_DecryptFinal, "sbL")             \
	X(C_DigestInit, "sm") X(C_Digest, "s..bL") X(C_DigestUpdate, "s..") X(C_DigestKey, "sk")                       \
	X(C_DigestFinal, "sbL")                                                                                        \
	X(C_SignInit, "smk") X(C_Sign, "s..bL") X(C_SignUpdate, "s..") X(C_SignFinal, "sbL")                           \
	X(C_SignRecoverInit, "smk") X(C_SignRecover, "s..bL")                                                          \
	X(C_VerifyInit, "smk") X(C_Verify, "s....") X(C_VerifyUpdate, "s..") X(C_VerifyFinal, "s..")                   \
	X(C_VerifyRecoverInit, "smk") X(C_VerifyRecover, "s..bL")                                                      \
	X(C_DigestEncryptUpdate, "s..bL") X(C_DecryptDigestUpdate, "s..bL")                                            \
	X(C_SignEncryptUpdate, "s..bL") X(C_DecryptVerifyUpdate, "s..bL")                                              \
	X(C_GenerateKey, "smT.n") X(C_GenerateKeyPair, "smT.T.nn")                                                     \
	X(C_WrapKey, "smwkbL") X(C_UnwrapKey, "smw..T.n") X(C_DeriveKey, "smkT.n")                                     \
	X(C_SeedRandom, "s..") X(C_GenerateRandom, "sbl")                                                              \
	X(C_GetFunctionStatus, "s") X(C_CancelFunction, "s") X(C_WaitForSlotEvent, "...")

#define FUNCTIONS_3_0(X)                                                                                               \
	X(C_GetInterfaceList, "..") X(C_GetInterface, "....")                                                          \
	X(C_LoginUser, "s.....") X(C_SessionCancel, "s.")                                                              \
	X(C_MessageEncryptInit, "smk") X(C_EncryptMessage, "s......bL") X(C_EncryptMessageBegin, "s....")              \
	X(C_EncryptMessageNext, "s....bL.") X(C_MessageEncryptFinal, "s")                                              \
	X(C_MessageDecryptInit, "smk") X(C_DecryptMessage, "s......bL") X(C_DecryptMessageBegin, "s....")              \
	X(C_DecryptMessageNext, "s....bL.") X(C_MessageDecryptFinal, "s")                                              \
	X(C_MessageSignInit, "smk") X(C_SignMessage, "s....bL") X(C_SignMessageBegin, "s..")                           \
	X(C_SignMessageNext, "s....bL") X(C_MessageSignFinal, "s")                                                     \
	X(C_MessageVerifyInit, "smk") X(C_VerifyMessage, "s......") X(C_VerifyMessageBegin, "s..")                     \
	X(C_VerifyMessageNext, "s......") X(C_MessageVerifyFinal, "s")

#define FUNCTIONS_3_2(X)                                                                                               \
	X(C_EncapsulateKey, "smkT.bLn") X(C_DecapsulateKey, "smkT...n")                                                \
	X(C_VerifySignatureInit, "smk..") X(C_VerifySignature, "s..") X(C_VerifySignatureUpdate, "s..")                \
	X(C_VerifySignatureFinal, "s") X(C_GetSessionValidationFlags, "s..")                                           \
	X(C_AsyncComplete, "s..") X(C_AsyncGetID, "s..") X(C_AsyncJoin, "s....")                                       \
	X(C_WrapKeyAuthenticated, "smwk..bL") X(C_UnwrapKeyAuthenticated, "smw..T...n")

#define FUNCTIONS(X) FUNCTIONS_2_40(X) FUNCTIONS_3_0(X) FUNCTIONS_3_2(X)
