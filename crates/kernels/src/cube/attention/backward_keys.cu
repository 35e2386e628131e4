// The gradients of keys and values: a block of threads has 16 keys for each of its warps and walks over the queries, of all
// heads that share the keys, that see any of them. Scores are computed transposed, so that each product's left side is
// in registers already.
//
// Also defined in front of this text: QUERIES, the queries of a tile, and PART of them at a time; RESIDENT.

#define WARPS (THREADS / 32)
#define KEYS (WARPS * 16)
#define TILE (QUERIES * ROW)
// Keys and values lie where the second stage of queries and gradients comes later, or where both come.
#define FITS (KEYS <= QUERIES)
#define KEYS_AT (FITS ? 2 * TILE : 0)
#define MEMORY (FITS || 4 * TILE > 2 * KEYS * ROW ? 4 * TILE : 2 * KEYS * ROW)

// One tile of queries, their gradients and statistics.
struct Tiles {
    const half_t *q, *dy;
    const float *stats, *deltas;

    __device__ __forceinline__ void copy(const Args &a, half_t *to, float *stats_to, int head, int query) const {
        copy_tile<QUERIES>(to, q + head * a.q[1], a.q[2], query, static_cast<int>(a.queries));
        copy_tile<QUERIES>(to + TILE, dy + head * a.dy[1], a.dy[2], query, static_cast<int>(a.queries));
        if (threadIdx.x < QUERIES / 2) {
            // The first half of them the logarithms of the sums, the other half the sums over dy * y.
            const int at = threadIdx.x * 4;
            const float *from = at < QUERIES ? stats : deltas - QUERIES;
            copy_piece(shared_address(stats_to + at), from + head * a.stat_row + query + at, true);
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
attention_backward_keys(const half_t *__restrict__ q, const half_t *__restrict__ k, const half_t *__restrict__ v,
                        const half_t *__restrict__ dy, const float *__restrict__ stats,
                        const float *__restrict__ deltas, half_t *__restrict__ dk, half_t *__restrict__ dv,
                        const __grid_constant__ Args a) {
    __shared__ __align__(16) half_t memory[MEMORY];
    __shared__ __align__(16) float statistics[2][2 * QUERIES];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int kv_heads = a.kv_heads, group = static_cast<int>(a.heads) / kv_heads;
    const int queries = a.queries, keys = a.keys;
    const int row = blockIdx.x / kv_heads, kv_head = blockIdx.x % kv_heads;
    // Under a causal mask the first keys have most to do, and come first.
    const int first = blockIdx.y * KEYS, mine = first + warp * 16;
    const Seen seen(a, row);
    const Scores scores(a);

    const long long head_of = row * a.heads + kv_head * group;
    const Tiles source = {
        q + row * a.q[0] + kv_head * group * a.q[1],
        dy + row * a.dy[0] + kv_head * group * a.dy[1],
        stats + head_of * a.stat_row,
        deltas + head_of * a.stat_row,
    };
    k += row * a.k[0] + kv_head * a.k[1];
    v += row * a.v[0] + kv_head * a.v[1];
    dk += (row * a.keys * kv_heads + kv_head) * D;
    dv += (row * a.keys * kv_heads + kv_head) * D;

    // The queries that may see one of the keys.
    int low = 0, high = queries;
    if (CAUSAL) low = max(first - seen.first + 1, 0);
    if (WINDOW) high = min(high, first + KEYS - seen.first + seen.window);
    if (first >= seen.end || first + KEYS <= seen.left) high = 0;
    const int begin = low / QUERIES, each = max((high + QUERIES - 1) / QUERIES - begin, 0);
    const int count = each * group;

    copy_tile<KEYS>(memory + KEYS_AT, k, a.k[2], first, keys);
    copy_tile<KEYS>(memory + KEYS_AT + KEYS * ROW, v, a.v[2], first, keys);
    commit();
    if (FITS && count > 0) source.copy(a, memory, statistics[0], 0, begin * QUERIES);
    commit();
    wait<1>();
    __syncthreads();
    pair_t key[D / 16][4], value[D / 16][4];
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
        const unsigned at = shared_address(memory + KEYS_AT + warp * 16 * ROW) + down_first() + kk * 32;
        load(key[kk], at);
        load(value[kk], at + KEYS * ROW * 2);
    }
    __syncthreads();
    if (!FITS) {
        if (count > 0) source.copy(a, memory, statistics[0], 0, begin * QUERIES);
        commit();
    }

    float dk_acc[D / 8][4] = {}, dv_acc[D / 8][4] = {};
    int head = 0, tile = 0;
    for (int step = 0; step < count; step++) {
        const int query = (begin + tile) * QUERIES;
        if (++tile == each) {
            tile = 0;
            head++;
        }
        wait<0>();
        __syncthreads();
        const int stage = step & 1;
        if (step + 1 < count)
            source.copy(a, memory + (stage ^ 1) * 2 * TILE, statistics[stage ^ 1], head, (begin + tile) * QUERIES);
        commit();
        const unsigned q_at = shared_address(memory + stage * 2 * TILE);
#pragma unroll
        for (int part = 0; part < QUERIES; part += PART) {
            if (seen.none(query + part, query + part + PART - 1, mine, 16)) continue;
            float p[PART / 8][4] = {}, ds[PART / 8][4] = {};
#pragma unroll
            for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
                for (int n = 0; n < PART / 16; n++) {
                    const unsigned at = q_at + along_first() + ((part + n * 16) * ROW + kk * 16) * 2;
                    pair_t b[4];
                    load(b, at);
                    multiply(p[2 * n], key[kk], b[0], b[1]);
                    multiply(p[2 * n + 1], key[kk], b[2], b[3]);
                    load(b, at + TILE * 2);
                    multiply(ds[2 * n], value[kk], b[0], b[1]);
                    multiply(ds[2 * n + 1], value[kk], b[2], b[3]);
                }
            const bool whole = seen.all(query + part, query + part + PART - 1, mine, 16);
            const float *log_sums = statistics[stage] + part + (lane & 3) * 2;
#pragma unroll
            for (int n = 0; n < PART / 8; n++) {
                const float2 log_sum = *reinterpret_cast<const float2 *>(log_sums + n * 8);
                const float2 delta = *reinterpret_cast<const float2 *>(log_sums + QUERIES + n * 8);
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int query_at = query + part + n * 8 + (lane & 3) * 2 + e;
                    const int from = seen.from(query_at) - mine - (lane >> 2);
                    const int to = seen.to(query_at) - mine - (lane >> 2);
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        float &x = p[n][half * 2 + e], &dx = ds[n][half * 2 + e];
                        const float score = scores.bounded(x);
                        x = exp2_of(score * scores.factor - (e == 0 ? log_sum.x : log_sum.y));
                        if (!whole && (half * 8 < from || half * 8 >= to)) x = 0.0f;
                        dx = x * (dx - (e == 0 ? delta.x : delta.y));
                        if (SOFTCAP) dx *= scores.slope(score);
                    }
                }
            }
#pragma unroll
            for (int kk = 0; kk < PART / 16; kk++) {
                pair_t left[4], left_ds[4];
                pack_block(left, p[2 * kk], p[2 * kk + 1]);
                pack_block(left_ds, ds[2 * kk], ds[2 * kk + 1]);
#pragma unroll
                for (int n = 0; n < D / 16; n++) {
                    const unsigned at = q_at + down_first() + ((part + kk * 16) * ROW + n * 16) * 2;
                    pair_t b[4];
                    load_transposed(b, at + TILE * 2);
                    multiply(dv_acc[2 * n], left, b[0], b[1]);
                    multiply(dv_acc[2 * n + 1], left, b[2], b[3]);
                    load_transposed(b, at);
                    multiply(dk_acc[2 * n], left_ds, b[0], b[1]);
                    multiply(dk_acc[2 * n + 1], left_ds, b[2], b[3]);
                }
            }
        }
    }

    wait<0>();
    __syncthreads();
    half_t *out = memory + warp * 16 * ROW;
    const float scale = static_cast<float>(a.scale);
    put_rows(out, dk_acc, scale, scale);
    put_rows(out + KEYS * ROW, dv_acc, 1.0f, 1.0f);
    __syncwarp();
    store_rows(dk, kv_heads * D, out, mine, keys);
    store_rows(dv, kv_heads * D, out + KEYS * ROW, mine, keys);
}
