/* Opens a library on the first call of one of its functions. Before this text stand NAME, ABSENT, `files` and `names` (see archives.rs). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define HIDDEN __attribute__((visibility("hidden")))

extern void *JOIN(diptych_slots_, NAME)[] HIDDEN;

static void *library;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void open_library(void) {
    for (int i = 0; files[i] && !library; i++) library = dlopen(files[i], RTLD_NOW | RTLD_GLOBAL);
}

/* Stands in for a function that is not there. */
static int absent(void) { return ABSENT; }

/* The address of function number `i`, from now on also in its slot. */
HIDDEN void *JOIN(diptych_open_, NAME)(unsigned i) {
    pthread_once(&once, open_library);
    void *found = library ? dlsym(library, names[i]) : 0;
    if (library && !found) fprintf(stderr, "%s has no function %s: it is of another version than expected\n", files[0], names[i]);
    if (!found) found = (void *)absent;
    __atomic_store_n(&JOIN(diptych_slots_, NAME)[i], found, __ATOMIC_RELEASE);
    return found;
}
