// elementwise.h: the threads of a launch cover an array once, in order, and stay inside of it.

#include "elementwise.h"

#include <initializer_list>
#include <stdio.h>

int main() {
    int failures = 0;
    for (long long n : {0ll, 1ll, 3ll, 4ll, 7ll, 8ll, 9ll, 1000ll, 1ll << 33}) {
        for (int width : {1, 4, 8}) {
            // All threads of a short array; the first and the last few of a long one.
            const long long threads = n / width + 3;
            long long expected = 0;
            for (long long thread = 0; thread < threads; thread++) {
                if (threads > 5000 && thread == 1000) {
                    thread = threads - 1000;
                    expected = thread * width;
                }
                const Span span = span_of(thread, width, n);
                const bool fits = span.start == expected && span.end >= span.start && span.end <= n;
                const bool size = span.end - span.start <= width && span.whole(width) == (span.end - span.start == width);
                if (!fits || !size) {
                    printf("n %lld, width %d, thread %lld: %lld to %lld, expected from %lld\n", n, width, thread, span.start, span.end, expected);
                    failures++;
                }
                expected = span.end;
            }
            if (expected != n) {
                printf("n %lld, width %d: covered %lld\n", n, width, expected);
                failures++;
            }
        }
    }
    return failures > 0;
}
