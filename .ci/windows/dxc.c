// Direct3D's newer compiler, DXC (dxcompiler.dll), called as wgpu-hal 30 calls it for a device with f16: see compilers.h.
//
// mingw has no dxcapi.h, so the little that is needed of its COM interfaces stands here: methods by their place in the table.
#include "compilers.h"

typedef struct {
    void **methods;
} object;

#define CALL(object, place, type) ((type)((object)->methods[place]))

typedef ULONG(WINAPI *release)(object *);
typedef HRESULT(WINAPI *create_instance)(const GUID *class, const GUID *iid, object **made);
typedef struct {
    const void *text;
    SIZE_T bytes;
    UINT32 encoding;
} buffer;
typedef HRESULT(WINAPI *compiler_compile)(object *, const buffer *, const WCHAR **arguments, UINT32 count, void *includes,
                                          const GUID *iid, object **result);
typedef HRESULT(WINAPI *result_status)(object *, HRESULT *);
typedef HRESULT(WINAPI *result_output)(object *, int kind, const GUID *iid, object **output, object **name);
typedef const char *(WINAPI *blob_text)(object *);
typedef SIZE_T(WINAPI *blob_length)(object *);

enum { RELEASE = 2, COMPILER_COMPILE = 3, RESULT_STATUS = 3, RESULT_OUTPUT = 7, BLOB_TEXT = 6, BLOB_LENGTH = 7 };
enum { ERRORS = 2, UTF8 = 65001 };

static const GUID compiler_class = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID compiler_interface = {0x228b4687, 0x5a6a, 0x4730, {0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54}};
static const GUID result_interface = {0x58346cda, 0xdde7, 0x4497, {0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59}};
static const GUID text_interface = {0x3da636c9, 0xba71, 0x4024, {0xa3, 0x01, 0x30, 0xcb, 0xf1, 0x25, 0x30, 0x5b}};

static object *compiler;

static int compile(const struct source *source, char *why, size_t why_bytes) {
    WCHAR target[16], entry[64];
    MultiByteToWideChar(CP_UTF8, 0, source->target, -1, target, 16);
    MultiByteToWideChar(CP_UTF8, 0, source->entry, -1, entry, 64);
    const WCHAR *arguments[] = {L"-E",  entry,          L"-T",  target,                L"-HV",
                                L"2018", L"-no-warnings", L"-Ges", L"-enable-16bit-types"};
    buffer text = {source->text, source->bytes, UTF8};
    object *result = NULL, *errors = NULL;
    HRESULT called = CALL(compiler, COMPILER_COMPILE, compiler_compile)(
        compiler, &text, arguments, sizeof arguments / sizeof *arguments, NULL, &result_interface, &result);
    HRESULT status = E_FAIL;
    if (result) {
        CALL(result, RESULT_STATUS, result_status)(result, &status);
        CALL(result, RESULT_OUTPUT, result_output)(result, ERRORS, &text_interface, &errors, NULL);
    }
    SIZE_T length = errors ? CALL(errors, BLOB_LENGTH, blob_length)(errors) : 0;
    snprintf(why, why_bytes, "%08lx %08lx %.1900s", (unsigned long)called, (unsigned long)status,
             length ? CALL(errors, BLOB_TEXT, blob_text)(errors) : "");
    if (errors) CALL(errors, RELEASE, release)(errors);
    if (result) CALL(result, RELEASE, release)(result);
    // wgpu takes any message for an error.
    return SUCCEEDED(called) && SUCCEEDED(status) && length == 0;
}

int main(int argc, char **argv) {
    if (argc != 3) fail("dxc", "DLL LIST");
    HMODULE dll = LoadLibraryA(argv[1]);
    if (!dll) fail("cannot load", argv[1]);
    // By way of a pointer that fits any function.
    create_instance create = (create_instance)(void *)GetProcAddress(dll, "DxcCreateInstance");
    if (!create || FAILED(create(&compiler_class, &compiler_interface, &compiler))) fail("no compiler in", argv[1]);
    return compile_all(argv[2]);
}
