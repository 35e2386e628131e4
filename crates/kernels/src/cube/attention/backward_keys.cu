// The gradients of keys and values: a block of threads has 16 keys for each of its warps and walks over the queries, of all
// heads that share the keys, that see any of them. Scores are computed transposed, so that each product's left side is
// in registers already.
//
// Also defined in front of this text: QUERIES, the queries of a tile; RESIDENT.

#if GROUPED && D == 64
#define Left Renewed
#else
// There are no registers for more.
#define Left Kept
#endif
// How many queries at a time: warps alone need registers for the right sides, too.
#define PART (GROUPED ? QUERIES : QUERIES / 2)
#define KEYS (THREADS / 2)
#define TILE TILE_OF(QUERIES)
// Keys and values lie where the second stage of queries and gradients comes later, or where both come.
#define FITS (KEYS <= QUERIES)
#define KEYS_AT (FITS ? 2 * TILE : 0)

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
    __shared__ __align__(1024) half_t memory[4 * TILE];
    __shared__ __align__(16) float statistics[2][2 * QUERIES];
    static_assert(KEYS <= 2 * QUERIES, "room for keys and values");
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
    copy_tile<KEYS>(memory + KEYS_AT + TILE_OF(KEYS), v, a.v[2], first, keys);
    commit();
    if (FITS && count > 0) source.copy(a, memory, statistics[0], 0, begin * QUERIES);
    commit();
    wait<1>();
    pair_t key[D / 16][4], value[D / 16][4];
    load_left<KEYS>(key, memory + KEYS_AT, warp * 16);
    load_left<KEYS>(value, memory + KEYS_AT + TILE_OF(KEYS), warp * 16);
    if (!FITS) {
        __syncthreads();
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
        const int stage = step & 1;
        if (step + 1 < count)
            source.copy(a, memory + (stage ^ 1) * 2 * TILE, statistics[stage ^ 1], head, (begin + tile) * QUERIES);
        commit();
        const half_t *q_tile = memory + stage * 2 * TILE;
#pragma unroll
        for (int part = 0; part < QUERIES; part += PART) {
            if (!GROUPED && seen.none(query + part, query + part + PART - 1, mine, 16)) continue;
            float p[PART / 8][4], ds[PART / 8][4];
            const Left left_key(a, key, step), left_value(a, value, step);
            begin_products();
            times_rows<QUERIES, PART>(p, left_key.now, q_tile, part);
            times_rows<QUERIES, PART>(ds, left_value.now, q_tile + TILE, part);
            end_products();
            settle(p);
            settle(ds);
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
            pair_t left[PART / 16][4], left_ds[PART / 16][4];
            pack_left(left, p);
            pack_left(left_ds, ds);
            begin_products();
            times_columns<QUERIES, PART>(dv_acc, left, q_tile + TILE, part);
            times_columns<QUERIES, PART>(dk_acc, left_ds, q_tile, part);
            end_products();
            settle(dv_acc);
            settle(dk_acc);
        }
    }

    wait<0>();
    half_t *through = memory + warp * 16 * ROW;
    const float scale = static_cast<float>(a.scale);
    store_rows(dk, kv_heads * D, dk_acc, scale, scale, through, mine, keys);
    store_rows(dv, kv_heads * D, dv_acc, 1.0f, 1.0f, through, mine, keys);
}
