// bcryptprimitives.dll for wine 8, which has none: Rust's standard library takes its random bytes from there.
// Wine 8 has the same generator under its older name, RtlGenRandom, which advapi32 exports as SystemFunction036.
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
    const SIZE_T most = 1 << 30; // SystemFunction036 takes 32 bits of length

    while (length > 0) {
        ULONG part = (ULONG)(length < most ? length : most);
        if (!SystemFunction036(data, part)) {
            return FALSE;
        }
        data += part;
        length -= part;
    }
    return TRUE;
}
