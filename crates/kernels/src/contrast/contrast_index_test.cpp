// The index arithmetic of contrast.cu: every place of a tile belongs to one thread, fragments are what tensor cores take,
// rules and chunks are what they say.
#include "contrast_index.h"

#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <set>
#include <utility>

using namespace contrast;

static void check(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "contrast_index.h: %s\n", what);
    std::exit(1);
}

static void every_place_has_one_owner() {
    for (int columns : {32, 64}) {
        std::set<std::pair<int, int>> seen;
        for (int thread = 0; thread < THREADS; thread++) {
            for (int i = 0; i < 2; i++) {
                for (int j = 0; j < columns / 8; j++) {
                    for (int e = 0; e < 4; e++) {
                        const int row = row_of(thread, i, e), column = column_of(thread, j, e);
                        check(row >= 0 && row < ROWS && column >= 0 && column < columns, "a place outside of the tile");
                        check(seen.insert({row, column}).second, "a place that two threads have");
                        check(place_of(thread, row, column) == 32 * i + 4 * j + e, "a place is not found where it is");
                        check(place_of((thread + 1) % THREADS, row, column) == -1, "a place is found at another thread");
                        check(column_bits(j, e) >> (32 * i + 4 * j + e) & 1, "a column's bits leave out a row");
                    }
                }
            }
        }
        check((int)seen.size() == ROWS * columns, "a place that nobody has");
    }
    for (int j = 0; j < 8; j++) {
        for (int e = 0; e < 2; e++) {
            check(__builtin_popcountll(column_bits(j, e)) == 4, "a column has four rows in a thread");
            check((column_bits(j, 0) & column_bits(j, 1)) == 0, "two columns share a bit");
        }
    }
}

// Lane l of a four-matrix load gets, of matrix k, row l / 4 and columns 2 (l % 4) and the next: as operands of
// mma.m16n8k16 those must be the rows and depths that the instruction takes.
static void loads_give_operands() {
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = lane % 4;
        for (int matrix = 0; matrix < 4; matrix++) {
            const int address = 8 * matrix + g; // The lane whose address is that of the row this lane gets.
            check(a_row(address) == g + matrix % 2 * 8 && a_depth(address) + 2 * t == 2 * t + matrix / 2 * 8, "an A operand");
            check(b_row(address) == g + matrix / 2 * 8 && b_depth(address) + 2 * t == 2 * t + matrix % 2 * 8, "a B operand");
            // Transposed: rows 2 t and the next of the matrix are what is summed over, its column g the operand's.
            const int summed = 8 * matrix + 2 * t;
            check(a_row(summed) == 2 * t + matrix % 2 * 8 && a_depth(summed) + g == g + matrix / 2 * 8, "a transposed operand");
        }
    }
}

// Eight rows one after the other, 16 bytes each: all 32 banks once.
static void rows_lie_in_different_banks() {
    for (int first = 0; first < 16; first++) {
        std::set<int> groups;
        for (int row = first; row < first + 8; row++) groups.insert(row * STRIDE_BYTES / 16 % 8);
        check(groups.size() == 8, "two rows in one group of banks");
    }
    std::set<int> single, paired;
    for (int lane = 0; lane < 32; lane++) {
        single.insert((lane / 4 * STRIDE_BYTES / 4 + lane % 4) % 32);
        paired.insert((lane % 4 * 2 * STRIDE_BYTES / 4 + lane / 4) % 32);
    }
    check(single.size() == 32 && paired.size() == 32, "two lanes of a TF32 operand in one bank");
}

static void rules_name_columns() {
    const Rule views{nullptr, 5, 5, 0}, itself{nullptr, 5, 0, 5}, none{nullptr, 0, NOBODY, NOBODY};
    for (int row = 0; row < 10; row++) {
        check(views.of(row) == (row + 5) % 10 && itself.of(row) == row, "two views");
        check(none.of(row) < 0 && none.of(row) + 2000000000 < 0, "nobody is somebody");
    }
    const unsigned list[] = {7, 3};
    check((Rule{list, 0, 0, 0}.of(1)) == 3, "a list");
    const Rule part{nullptr, 3, 14, 4};
    check(part.of(2) == 16 && part.of(3) == 4 && part.of(5) == 6, "a rank's part");
}

static void chunks_come_once_and_the_wanted_last() {
    for (int chunks = 1; chunks < 6; chunks++) {
        for (int last = 0; last < chunks; last++) {
            std::set<int> seen;
            for (int step = 0; step < chunks; step++) seen.insert(chunk_at(step, last, chunks));
            check((int)seen.size() == chunks && chunk_at(chunks - 1, last, chunks) == last, "the order of chunks");
        }
    }
    check(partial_at(3, 1 << 30, 5) == 3ll * (1 << 30) + 5, "a partial result beyond 32 bits");
}

int main() {
    every_place_has_one_owner();
    loads_give_operands();
    rows_lie_in_different_banks();
    rules_name_columns();
    chunks_come_once_and_the_wanted_last();
    return 0;
}
