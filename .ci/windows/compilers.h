// What the drivers of Microsoft's two HLSL compilers share: `DRIVER DLL LIST` compiles the files that LIST names, one a line.
//
// A file begins with `// TARGET ENTRY`, as runtime/src/gpu/ops/translate_tests.rs writes it. For each file one line goes to
// standard output: `ok SECONDS FILE` or `FAILED SECONDS FILE`, in seconds of the processor, the latter followed by what the
// compiler says.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

struct source {
    char *text;
    size_t bytes;
    char target[16], entry[64];
};

// The compiler's own part: whether it takes the source, and, where it does not, why.
static int compile(const struct source *source, char *why, size_t why_bytes);

static void fail(const char *what, const char *name) {
    printf("%s %s\n", what, name);
    exit(2);
}

static struct source read_source(const char *path) {
    struct source source;
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot open", path);
    fseek(file, 0, SEEK_END);
    source.bytes = ftell(file);
    rewind(file);
    source.text = malloc(source.bytes + 1);
    if (!source.text || fread(source.text, 1, source.bytes, file) != source.bytes) fail("cannot read", path);
    source.text[source.bytes] = 0;
    fclose(file);
    if (sscanf(source.text, "// %15s %63s", source.target, source.entry) != 2) fail("no target and entry point in", path);
    return source;
}

// Of the processor so far: a machine with other work would make any shader look slow by the clock.
static double seconds(void) {
    FILETIME created, ended, kernel, user;
    GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user);
    return 1e-7 * (4294967296.0 * ((double)kernel.dwHighDateTime + user.dwHighDateTime) + kernel.dwLowDateTime + user.dwLowDateTime);
}

static int compile_all(const char *list_path) {
    FILE *list = fopen(list_path, "r");
    char path[1024], why[2000];
    int failed = 0;
    if (!list) fail("cannot open", list_path);
    while (fgets(path, sizeof path, list)) {
        path[strcspn(path, "\r\n")] = 0;
        struct source source = read_source(path);
        double start = seconds();
        int good = compile(&source, why, sizeof why);
        printf("%s %.3f %s\n", good ? "ok" : "FAILED", seconds() - start, path);
        if (!good) printf("%s\n", why);
        fflush(stdout);
        failed += !good;
        free(source.text);
    }
    return failed != 0;
}
