// The gathers against the definition of convolution, dividers against division, and tiles against the banks of shared memory.

#include "conv2d_index.h"

#include <cstdio>
#include <set>
#include <vector>

static int failures = 0;

static void expect(bool holds, const char* what, long long a = 0, long long b = 0) {
    if (holds) return;
    if (failures++ < 20) printf("%s (%lld, %lld)\n", what, a, b);
}

static void test_dividers() {
    std::vector<int> numbers = {1, 2, 3, 5, 7, 9, 10, 49, 56, 64, 112, 147, 3136, 12544, 50176, 65535, 65536, 65537, 1000003};
    for (int bit = 2; bit < 31; bit++)
        for (int off : {-1, 0, 1}) numbers.push_back((1 << bit) + off);
    numbers.push_back(2147483647);
    for (int d : numbers) {
        const Divider by = divider(d);
        std::vector<long long> at = {0, 1, 2147483647, 2147483646};
        for (int base : numbers)
            for (long long off : {-1ll, 0ll, 1ll}) {
                at.push_back(base + off);
                at.push_back((long long)base * d + off);
                at.push_back((2147483647ll / d) * d + off);
            }
        for (long long n : at)
            if (n >= 0 && n <= 2147483647ll) expect(by.quotient((int)n) == n / d, "a divider is wrong", n, d);
    }
}

// (output value, source value, weight) of each product of a convolution, by the definition.
struct Product {
    long long out, source, weight;
    bool operator<(const Product& other) const {
        if (out != other.out) return out < other.out;
        return source != other.source ? source < other.source : weight < other.weight;
    }
    bool operator==(const Product& other) const { return !(*this < other) && !(other < *this); }
};

// Input pixel, output pixel and tap of each product of one channel of one kernel.
template <typename F> static void each_product(const ConvSizes& s, F f) {
    for (int n = 0; n < s.n; n++)
        for (int a = 0; a < s.oh; a++)
            for (int b = 0; b < s.ow; b++)
                for (int i = 0; i < s.kh; i++)
                    for (int j = 0; j < s.kw; j++) {
                        const int row = a * s.stride + i - s.padding, column = b * s.stride + j - s.padding;
                        if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
                        f((n * s.h + row) * s.w + column, (n * s.oh + a) * s.ow + b, i * s.kw + j);
                    }
}

// The products that a gather makes, for one column of weights; each output pixel once.
static void add_products(const Gather& g, std::multiset<Product>& products, std::vector<int>& written) {
    for (int at = 0; at < g.pixels(); at++) {
        const Pixel pixel = pixel_of(g, at, g.pixels());
        written[output_of(g, at)]++;
        for (int k = 0; k < g.terms() + 3; k++) {
            const Term term = term_of(g, k, g.terms());
            const long long source = source_of(g, pixel, term);
            if (k >= g.terms()) expect(source < 0, "a term beyond the last reads", at, k);
            if (source >= 0) products.insert(Product{output_of(g, at), source, term.weight});
        }
    }
    for (int k = 0; k < g.terms(); k++) {
        const Pixel beyond = pixel_of(g, g.pixels(), g.pixels());
        expect(source_of(g, beyond, term_of(g, k, g.terms())) < 0, "a pixel beyond the last reads", k);
    }
}

static void test_gathers(const ConvSizes& s) {
    std::multiset<Product> expected, got;
    std::vector<int> written(s.n * s.oh * s.ow);
    each_product(s, [&](long long in, long long out, int tap) {
        for (int c = 0; c < s.c; c++) expected.insert(Product{out, in * s.c + c, (long long)tap * s.c + c});
    });
    add_products(forward_gather(s), got, written);
    expect(got == expected, "the forward gather's products differ", s.kh, s.stride);
    for (int count : written) expect(count == 1, "an output pixel is written never or twice", s.kh, s.stride);

    expected.clear(), got.clear();
    written.assign(s.n * s.h * s.w, 0);
    each_product(s, [&](long long in, long long out, int tap) {
        for (int o = 0; o < s.o; o++) expected.insert(Product{in, out * s.o + o, (long long)tap * s.o + o});
    });
    for (int phase = 0; phase < s.stride * s.stride; phase++) add_products(backward_gather(s, phase), got, written);
    expect(got == expected, "the backward gather's products differ", s.kh, s.stride);
    for (int count : written) expect(count == 1, "an input pixel is written never or twice", s.kh, s.stride);
}

static ConvSizes sizes(int n, int h, int w, int c, int o, int kh, int kw, int stride, int padding) {
    const int oh = (h + 2 * padding - kh) / stride + 1, ow = (w + 2 * padding - kw) / stride + 1;
    return ConvSizes{n, h, w, c, o, kh, kw, stride, padding, oh, ow, 0};
}

// Places are a permutation, and the chunks that are read at once lie in different banks (chunk modulo 8).
template <typename F> static void test_places(const char* what, int rows, int chunks, int at_once, int beside, F place) {
    std::set<int> all;
    for (int row = 0; row < rows; row++)
        for (int chunk = 0; chunk < chunks; chunk++) all.insert(place(row, chunk));
    expect((int)all.size() == rows * chunks && *all.rbegin() == rows * chunks - 1, what, rows, chunks);
    for (int row = 0; row + at_once <= rows; row += at_once)
        for (int chunk = 0; chunk + beside <= chunks; chunk += beside) {
            std::set<int> banks;
            for (int i = 0; i < at_once; i++)
                for (int j = 0; j < beside; j++) banks.insert(place(row + i, chunk + j) % 8);
            expect((int)banks.size() == at_once * beside, what, row, chunk);
        }
}

int main() {
    test_dividers();
    test_gathers(sizes(2, 5, 7, 3, 2, 3, 3, 1, 1));
    test_gathers(sizes(2, 5, 7, 3, 2, 3, 3, 2, 1));
    test_gathers(sizes(1, 9, 7, 1, 2, 7, 7, 2, 3));
    test_gathers(sizes(3, 5, 5, 2, 3, 1, 1, 2, 0));
    test_gathers(sizes(1, 4, 6, 2, 3, 1, 1, 3, 0));
    test_gathers(sizes(1, 5, 4, 2, 3, 2, 3, 2, 2));
    test_gathers(sizes(1, 2, 3, 2, 2, 2, 2, 1, 3));
    test_gathers(sizes(1, 1, 1, 5, 3, 3, 3, 1, 1));
    test_gathers(sizes(1, 2, 2, 1, 1, 1, 1, 5, 1));
    test_gathers(sizes(2, 8, 6, 2, 2, 4, 2, 3, 0));

    for (unsigned block = 0; block < 12; block++) {
        const Tile tile = tile_of(block, 128, 64, 130);
        expect(tile.row == (int)(block / 3) * 128 && tile.column == (int)(block % 3) * 64, "a block's tile", block);
    }
    test_places("chunk_of_four", 64, 4, 8, 1, [](int row, int chunk) { return chunk_of_four(row, chunk); });
    for (int chunks : {8, 16}) {
        const auto place = [=](int row, int chunk) { return chunk_of_row(row, chunk, chunks); };
        test_places("chunk_of_row", 32, chunks, 8, 1, place);
    }
    for (int chunks : {16, 32}) {
        const auto place = [=](int row, int chunk) { return chunk_of_pairs(row, chunk, chunks); };
        test_places("chunk_of_pairs", 16, chunks, 4, 2, place);
    }
    if (failures) printf("%d checks failed\n", failures);
    return failures != 0;
}
