// The emulator's own test: right kernels give right numbers in every order, and each planted mistake is found.
#include "../../crates/kernels/src/cuda/common.cuh"

#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
    if (holds) return;
    printf("FAILED: %s\n", what);
    failures++;
}

} // namespace

// Small whole numbers, whose sums and products no rounding changes.
static float number(int i) { return (float)(i * 37 % 15 - 7); }

extern "C" __global__ void sums(const float* x, float* y, int n) {
    __shared__ float room[32];
    float sum = 0;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) sum += x[blockIdx.x * (unsigned)n + (unsigned)i];
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}

// d = a b of one warp, [16, 16] and [16, 8] in bf16 and [16, 8] and [8, 8] in TF32, through asynchronous copies.
extern "C" __global__ void products(const bf16* a, const bf16* b, float* d, const float* fa, const float* fb, float* fd) {
    __shared__ __align__(16) bf16 sa[16][24], sb[16][8];
    const int l = (int)threadIdx.x, g = l / 4, t = l % 4;
    copy_async16(&sa[l / 2][l % 2 * 8], a + l * 8, true);
    copy_async_commit();
    if (l < 16) copy_async16(&sb[l][0], b + l * 8, true);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    unsigned ra[4], rb[4];
    ldmatrix_x4(ra, &sa[l % 8 + l / 8 % 2 * 8][l / 16 * 8]);
    ldmatrix_x4_trans(rb, &sb[l % 16][0]);
    const unsigned b2[2] = {rb[0], rb[1]};
    float sum[4] = {}, tf32[4] = {};
    mma_bf16(sum, ra, b2);
    const unsigned ta[4] = {to_tf32(fa[g * 8 + t]), to_tf32(fa[(g + 8) * 8 + t]), to_tf32(fa[g * 8 + t + 4]),
                            to_tf32(fa[(g + 8) * 8 + t + 4])};
    const unsigned tb[2] = {to_tf32(fb[t * 8 + g]), to_tf32(fb[(t + 4) * 8 + g])};
    mma_tf32(tf32, ta, tb);
    for (int i = 0; i < 4; i++) {
        const int at = (g + i / 2 * 8) * 8 + 2 * t + i % 2;
        d[at] = sum[i], fd[at] = tf32[i];
    }
}

static void right_kernels() {
    const int blocks = 7, n = 1000;
    std::vector<float> x(blocks * n), y(blocks);
    for (int i = 0; i < blocks * n; i++) x[(size_t)i] = number(i);
    emulator::launch(blocks, 256, 0, sums, x.data(), y.data(), n);
    bool same = true;
    for (int block = 0; block < blocks; block++) {
        float sum = 0;
        for (int i = 0; i < n; i++) sum += x[(size_t)(block * n + i)];
        same = same && sum == y[(size_t)block];
    }
    expect(same, "sums of blocks");

    std::vector<bf16> a(256), b(128);
    std::vector<float> d(128), fa(128), fb(64), fd(128);
    for (int i = 0; i < 256; i++) a[(size_t)i] = narrow<bf16>(number(i));
    for (int i = 0; i < 128; i++) b[(size_t)i] = narrow<bf16>(number(3 * i)), fa[(size_t)i] = number(5 * i);
    for (int i = 0; i < 64; i++) fb[(size_t)i] = number(7 * i);
    emulator::launch(1, 32, 0, products, a.data(), b.data(), d.data(), fa.data(), fb.data(), fd.data());
    same = true;
    for (size_t r = 0; r < 16; r++)
        for (size_t c = 0; c < 8; c++) {
            float sum = 0, tf32 = 0;
            for (size_t k = 0; k < 16; k++) sum += widen(a[r * 16 + k]) * widen(b[k * 8 + c]);
            for (size_t k = 0; k < 8; k++) tf32 += fa[r * 8 + k] * fb[k * 8 + c];
            same = same && d[r * 8 + c] == sum && fd[r * 8 + c] == tf32;
        }
    expect(same, "products of tensor cores");
}

enum Mistake { NONE, ENDS_EARLY, TWO_BARRIERS, ABSENT_LANE, BEYOND, SHARED_BEYOND, MISALIGNED, INDEX, OVERFLOW, NOT_SHARED, NO_BARRIER, NO_WAIT };

extern "C" __global__ void mistaken(float* y, int mistake, int five) {
    __shared__ float room[32];
    DYNAMIC_SHARED(bytes);
    float* values = reinterpret_cast<float*>(bytes);
    const int i = (int)threadIdx.x;
    if (mistake == ENDS_EARLY && i < five) return;
    if (mistake == TWO_BARRIERS && i < five) __syncthreads();
    else if (mistake != NO_BARRIER)
        __syncthreads();
    if (mistake == ABSENT_LANE && i < five) y[0] = __shfl_xor_sync(FULL_WARP, y[0], 1);
    if (mistake == BEYOND) y[(long long)five << 34] = 1;
    if (mistake == SHARED_BEYOND) values[1000 * five] = 1;
    if (mistake == MISALIGNED) y[0] = load<float, 4>(y + i + 1).at[0];
    if (mistake == INDEX) room[7 * five] = 1, y[0] = room[0];
    if (mistake == OVERFLOW) y[0] = (float)(five * 1000000000);
    if (mistake == NOT_SHARED) copy_async16(y, y, true);
    if (mistake == NO_WAIT) {
        if (i < 16) copy_async16(values + 4 * i, y + 4 * i, true);
        copy_async_commit();
    } else {
        values[i] = (float)i;
    }
    if (mistake != NO_BARRIER) __syncthreads();
    y[i] = values[(i + 1) % (int)blockDim.x];
}

namespace {

// What a child process that makes this mistake says on stderr, or `right` or `wrong`.
std::string outcome(Mistake mistake) {
    int ends[2];
    if (pipe(ends)) return "no pipe";
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        alignas(16) static float y[64];
        for (float& v : y) v = 1.0f;
        emulator::launch(1, 64, 64 * sizeof(float), mistaken, y, (int)mistake, 5);
        bool same = true;
        for (int i = 0; i < 64; i++) same = same && y[i] == (mistake == NO_WAIT ? 1.0f : (float)((i + 1) % 64));
        dprintf(2, "%s", same ? "right" : "wrong");
        _exit(0);
    }
    close(ends[1]);
    std::string text;
    char part[256];
    for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) text.append(part, (size_t)n);
    close(ends[0]);
    waitpid(child, nullptr, 0);
    return text;
}

void planted_mistakes() {
    const struct { Mistake mistake; const char* expected; } CASES[] = {
        {NONE, "right"},
        {ENDS_EARLY, "is not reached by thread 4 of the block, which has ended (59 of 64 threads wait)"},
        {TWO_BARRIERS, "threads of a block wait in two places"},
        {ABSENT_LANE, "for lanes of its warp (mask ffffffff) that never come"},
        {BEYOND, "which is no memory of the device"},
        {SHARED_BEYOND, "which is no memory of the device"},
        {MISALIGNED, "which is not a multiple of 16"},
        {INDEX, "an index outside of its array"},
        {OVERFLOW, "a signed product overflows"},
        {NOT_SHARED, "is not in shared memory"},
    };
    for (const auto& [mistake, expected] : CASES) {
        const std::string text = outcome(mistake);
        const bool named = mistake == NONE || text.find("kernel mistaken, block (0, 0, 0), thread (") != std::string::npos;
        if (text.find(expected) == std::string::npos || !named) printf("expected: %s\ngot: %s\n", expected, text.c_str());
        expect(text.find(expected) != std::string::npos && named, "a planted mistake is found");
    }
    // In one order the neighbor has written already, in the other the copy was done at once.
    const bool forward = emulator::order() == emulator::Order::Forward, reverse = emulator::order() == emulator::Order::Reverse;
    if (forward) expect(outcome(NO_BARRIER) == "wrong" && outcome(NO_WAIT) == "wrong", "a missing barrier and a missing wait show");
    if (reverse) expect(outcome(NO_BARRIER) == "wrong" && outcome(NO_WAIT) == "right", "a missing barrier shows, a wait need not");
}

} // namespace

int main() {
    // Before the right ones: a child has no helpers once its parent has started some.
    planted_mistakes();
    right_kernels();
    if (!failures) printf("the emulator is as it should be\n");
    return failures != 0;
}
