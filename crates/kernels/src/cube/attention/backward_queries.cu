// The gradient of the queries, and of each query the sum over dy * y: a block of threads has 16 queries for each of its
// warps and walks over the keys that any of them sees. Probabilities are computed again from the logarithms of the sums.
//
// Also defined in front of this text: KEYS, the keys of a tile; RESIDENT.

#if GROUPED && D == 64
#define Left Renewed
#else
// There are no registers for more.
#define Left Kept
#endif
// How many keys at a time.
#define PART 32
#define QUERIES (THREADS / 2)
#define TILE TILE_OF(KEYS)
// Queries and gradients lie where the second stage of keys and values comes later, or where both come.
#define FITS (QUERIES <= KEYS)
#define QUERIES_AT (FITS ? 2 * TILE : 0)

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
attention_backward_queries(const half_t *__restrict__ q, const half_t *__restrict__ k, const half_t *__restrict__ v,
                           const half_t *__restrict__ y, const half_t *__restrict__ dy,
                           const float *__restrict__ stats, float *__restrict__ deltas, half_t *__restrict__ dq,
                           const __grid_constant__ Args a) {
    __shared__ __align__(1024) half_t memory[4 * TILE];
    static_assert(QUERIES <= 2 * KEYS, "room for queries and gradients");
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int heads = a.heads, queries = a.queries, keys = a.keys;
    const int row = blockIdx.x / heads, head = blockIdx.x % heads;
    const int kv_head = head / (heads / static_cast<int>(a.kv_heads));
    // Under a causal mask the last queries have most to do, so they come first.
    const int first = (gridDim.y - 1 - blockIdx.y) * QUERIES;
    const int mine = first + warp * 16;
    const Seen seen(a, row);
    const Scores scores(a);

    q += row * a.q[0] + head * a.q[1];
    k += row * a.k[0] + kv_head * a.k[1];
    v += row * a.v[0] + kv_head * a.v[1];
    dy += row * a.dy[0] + head * a.dy[1];
    y += (row * a.queries * heads + head) * D;
    dq += (row * a.queries * heads + head) * D;

    const int last = min(first + QUERIES, queries) - 1;
    const int begin = seen.from(first) / KEYS;
    const int end = seen.to(last) > seen.from(first) ? (seen.to(last) + KEYS - 1) / KEYS : begin;

    copy_tile<QUERIES>(memory + QUERIES_AT, q, a.q[2], first, queries);
    copy_tile<QUERIES>(memory + QUERIES_AT + TILE_OF(QUERIES), dy, a.dy[2], first, queries);
    commit();
    if (FITS && begin < end) {
        copy_tile<KEYS>(memory, k, a.k[2], begin * KEYS, keys);
        copy_tile<KEYS>(memory + TILE, v, a.v[2], begin * KEYS, keys);
    }
    commit();
    wait<1>();
    pair_t query[D / 16][4], grad[D / 16][4];
    load_left<QUERIES>(query, memory + QUERIES_AT, warp * 16);
    load_left<QUERIES>(grad, memory + QUERIES_AT + TILE_OF(QUERIES), warp * 16);
    if (!FITS) {
        __syncthreads();
        if (begin < end) {
            copy_tile<KEYS>(memory, k, a.k[2], begin * KEYS, keys);
            copy_tile<KEYS>(memory + TILE, v, a.v[2], begin * KEYS, keys);
        }
        commit();
    }

    // The rows of a fragment: `lane / 4`, and eight further.
    float log_sum[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int at = mine + half * 8 + (lane >> 2);
        const bool real = at < queries;
        float sum = 0.0f;
#pragma unroll
        for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
            for (int side = 0; side < 2; side++) {
                const int column = kk * 16 + side * 8 + (lane & 3) * 2;
                const pair_t *value = reinterpret_cast<const pair_t *>(y + static_cast<long long>(at) * heads * D + column);
                const float2 left = unpack(real ? *value : 0u), right = unpack(grad[kk][side * 2 + half]);
                sum += left.x * right.x + left.y * right.y;
            }
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        delta[half] = sum;
        log_sum[half] = stats[blockIdx.x * a.stat_row + at];
        if ((lane & 3) == 0) deltas[blockIdx.x * a.stat_row + at] = sum;
    }

    float acc[D / 8][4] = {};
    for (int tile = begin; tile < end; tile++) {
        const int key = tile * KEYS;
        wait<0>();
        const half_t *k_tile = memory + ((tile - begin) & 1) * 2 * TILE;
        if (tile + 1 < end) {
            half_t *next = memory + ((tile + 1 - begin) & 1) * 2 * TILE;
            copy_tile<KEYS>(next, k, a.k[2], key + KEYS, keys);
            copy_tile<KEYS>(next + TILE, v, a.v[2], key + KEYS, keys);
        }
        commit();
#pragma unroll
        for (int part = 0; part < KEYS; part += PART) {
            if (!GROUPED && seen.none(mine, mine + 15, key + part, PART)) continue;
            float s[PART / 8][4], ds[PART / 8][4];
            const Left left(a, query, tile), left_grad(a, grad, tile);
            begin_products();
            times_rows<KEYS, PART>(s, left.now, k_tile, part);
            times_rows<KEYS, PART>(ds, left_grad.now, k_tile + TILE, part);
            end_products();
            settle(s);
            settle(ds);
            const bool whole = seen.all(mine, mine + 15, key + part, PART);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int query_at = mine + half * 8 + (lane >> 2);
                const int from = seen.from(query_at) - key - part - (lane & 3) * 2;
                const int to = seen.to(query_at) - key - part - (lane & 3) * 2;
#pragma unroll
                for (int n = 0; n < PART / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        const float score = scores.bounded(s[n][half * 2 + e]);
                        float p = exp2_of(score * scores.factor - log_sum[half]);
                        if (!whole && (n * 8 + e < from || n * 8 + e >= to)) p = 0.0f;
                        float &x = ds[n][half * 2 + e];
                        x = p * (x - delta[half]);
                        if (SOFTCAP) x *= scores.slope(score);
                    }
            }
            pair_t d[PART / 16][4];
            pack_left(d, ds);
            begin_products();
            times_columns<KEYS, PART>(acc, d, k_tile, part);
            end_products();
            settle(acc);
        }
    }

    wait<0>();
    const float scale = static_cast<float>(a.scale);
    store_rows(dq, heads * D, acc, scale, scale, memory + warp * 16 * ROW, mine, queries);
}
