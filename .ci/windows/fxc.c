// Direct3D's older compiler, FXC (d3dcompiler_47.dll), called as wgpu-hal 30 calls it: see compilers.h.
#define COBJMACROS
#include "compilers.h"
#include <d3dcompiler.h>

static pD3DCompile d3d_compile;

static int compile(const struct source *source, char *why, size_t why_bytes) {
    ID3DBlob *code = NULL, *errors = NULL;
    HRESULT result = d3d_compile(source->text, source->bytes, NULL, NULL, NULL, source->entry, source->target,
                                 D3DCOMPILE_ENABLE_STRICTNESS, 0, &code, &errors);
    snprintf(why, why_bytes, "%08lx %.1900s", (unsigned long)result,
             errors ? (const char *)ID3D10Blob_GetBufferPointer(errors) : "");
    if (code) ID3D10Blob_Release(code);
    if (errors) ID3D10Blob_Release(errors);
    return SUCCEEDED(result);
}

int main(int argc, char **argv) {
    if (argc != 3) fail("fxc", "DLL LIST");
    HMODULE dll = LoadLibraryA(argv[1]);
    if (!dll) fail("cannot load", argv[1]);
    // By way of a pointer that fits any function.
    d3d_compile = (pD3DCompile)(void *)GetProcAddress(dll, "D3DCompile");
    if (!d3d_compile) fail("no D3DCompile in", argv[1]);
    return compile_all(argv[2]);
}
