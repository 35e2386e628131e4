//! Hopper's instructions that CubeCL has no name for, each as inline PTX.
//!
//! The sums of a tile live in registers `acc0..`, declared once for the whole function, so that instructions name them
//! instead of passing 128 operands around.

use cubecl::prelude::*;
use cubecl_cpp::cuda::ptx::{generic_to_shared, tensor_map_address};

use super::plan::Plan;

/// Declares the registers of the sums.
#[cube]
pub(super) fn declare_sums(#[comptime] count: u32) {
    gpu_asm!(".reg .f32 acc<{count}>;");
}

/// The address of shared memory as the instructions below take it.
#[cube]
pub(super) fn shared_address(memory: &[u32]) -> u32 {
    generic_to_shared::<u32>(memory.as_ptr())
}

/// Prepares a barrier that `arrivals` threads complete.
#[cube]
pub(super) fn barrier_init(barrier: u32, arrivals: u32) {
    gpu_asm!("mbarrier.init.shared::cta.b64 [{b}], {n};", b = in(_) barrier, n = in(_) arrivals);
}

/// Makes prepared barriers known to the copy engine.
#[cube]
pub(super) fn barrier_fence() {
    gpu_asm!("fence.mbarrier_init.release.cluster; fence.proxy.async;");
}

/// One arrival.
#[cube]
pub(super) fn barrier_arrive(barrier: u32) {
    gpu_asm!("mbarrier.arrive.shared::cta.b64 _, [{b}];", b = in(_) barrier);
}

/// One arrival, and the copy engine's bytes to wait for.
#[cube]
pub(super) fn barrier_expect(barrier: u32, bytes: u32) {
    gpu_asm!(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [{b}], {n};",
        b = in(_) barrier, n = in(_) bytes
    );
}

/// Waits until the barrier has left the given phase (0 or 1).
#[cube]
pub(super) fn barrier_wait(barrier: u32, phase: u32) {
    gpu_asm!(
        "{{ .reg .pred done;",
        "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 done, [{b}], {p};",
        "@done bra READY; bra AGAIN;",
        "READY: }}",
        b = in(_) barrier, p = in(_) phase
    );
}

/// Lets the copy engine bring the box at (`row`, `column`) to shared memory.
#[cube]
pub(super) fn load_box(map: &TensorMap<u16, Tiled>, to: u32, barrier: u32, row: u32, column: u32) {
    let map = tensor_map_address(map);
    gpu_asm!(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [{to}], [{map}, {{{column}, {row}}}], [{b}];",
        to = in(_) to, map = in(_) map, column = in(_) column, row = in(_) row, b = in(_) barrier
    );
}

/// Lets the copy engine take the box at (`row`, `column`) from shared memory; it leaves out what lies outside.
#[cube]
pub(super) fn store_box(map: &TensorMap<u16, Tiled>, from: u32, row: u32, column: u32) {
    let map = tensor_map_address(map);
    gpu_asm!(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [{map}, {{{column}, {row}}}], [{from}];",
        map = in(_) map, column = in(_) column, row = in(_) row, from = in(_) from
    );
}

/// Closes the group of this thread's stores.
#[cube]
pub(super) fn store_commit() {
    gpu_asm!("cp.async.bulk.commit_group;");
}

/// Waits until all but `pending` groups of this thread's stores have been read from shared memory.
#[cube]
pub(super) fn store_wait(#[comptime] pending: u32) {
    gpu_asm!("cp.async.bulk.wait_group.read {pending};");
}

/// Makes this thread's writes to shared memory known to the copy engine.
#[cube]
pub(super) fn store_fence() {
    gpu_asm!("fence.proxy.async.shared::cta;");
}

/// A barrier among the 128 threads of one warpgroup.
#[cube]
pub(super) fn group_sync(group: u32) {
    gpu_asm!("bar.sync {id}, 128;", id = in(_) group + 1);
}

/// Orders the sums' registers and shared memory before the next products.
#[cube]
pub(super) fn multiply_fence() {
    gpu_asm!("wgmma.fence.sync.aligned;");
}

/// Adds the product of 64 rows and 16 elements of the summed dimension to the sums, or starts them where `keep` is 0.
#[cube]
pub(super) fn multiply(
    left: u64,
    right: u64,
    keep: u32,
    #[comptime] part: u32,
    #[comptime] plan: Plan,
) {
    let sums = comptime!(registers(plan.sums()));
    let columns = comptime!(plan.columns);
    let element = comptime!(plan.element());
    let left_by = comptime!(part * Plan::advance(plan.left_transposed));
    let right_by = comptime!(part * Plan::advance(!plan.right_transposed));
    let left_along = comptime!(plan.left_transposed as u32);
    let right_along = comptime!(!plan.right_transposed as u32);
    gpu_asm!(
        "{{ .reg .pred keep; .reg .b64 left, right;",
        "setp.ne.b32 keep, {keep}, 0; add.s64 left, {left}, {left_by}; add.s64 right, {right}, {right_by};",
        "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{element}.{element}",
        "{{{sums}}}, left, right, keep, 1, 1, {left_along}, {right_along}; }}",
        keep = in(_) keep, left = in(_) left, right = in(_) right
    );
}

fn registers(count: u32) -> String {
    (0..count)
        .map(|i| format!("acc{i}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Closes a group of products.
#[cube]
pub(super) fn multiply_commit() {
    gpu_asm!("wgmma.commit_group.sync.aligned;");
}

/// Waits until at most `pending` groups of products run.
#[cube]
pub(super) fn multiply_wait(#[comptime] pending: u32) {
    gpu_asm!("wgmma.wait_group.sync.aligned {pending};");
}

/// One sum.
#[cube]
pub(super) fn sum(#[comptime] index: u32) -> f32 {
    let value: f32;
    gpu_asm!("mov.f32 {value}, acc{index};", value = out(_) value);
    value
}

/// Writes one sum to the same place in the shared memory of the cluster's first cube.
#[cube]
pub(super) fn send_sum(to: u32, #[comptime] index: u32) {
    gpu_asm!(
        "{{ .reg .b32 there; mapa.shared::cluster.u32 there, {to}, 0;",
        "st.shared::cluster.f32 [there], acc{index}; }}",
        to = in(_) to
    );
}

/// Adds a number in shared memory to one sum.
#[cube]
pub(super) fn receive_sum(from: u32, #[comptime] index: u32) {
    gpu_asm!(
        "{{ .reg .f32 other; ld.shared.f32 other, [{from}]; add.f32 acc{index}, acc{index}, other; }}",
        from = in(_) from
    );
}

/// One arrival at the barrier of the cluster's first cube, which shows it what this thread has written.
#[cube]
pub(super) fn cluster_arrive(barrier: u32) {
    gpu_asm!(
        "{{ .reg .b32 there; mapa.shared::cluster.u32 there, {b}, 0;",
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there]; }}",
        b = in(_) barrier
    );
}

/// Waits for the first phase of a barrier, and what threads of other cubes had written before they arrived.
#[cube]
pub(super) fn cluster_wait(barrier: u32) {
    gpu_asm!(
        "{{ .reg .pred done;",
        "AGAIN: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [{b}], 0;",
        "@done bra READY; bra AGAIN;",
        "READY: }}",
        b = in(_) barrier
    );
}

/// A barrier among all threads of a cluster.
#[cube]
pub(super) fn cluster_sync() {
    gpu_asm!("barrier.cluster.arrive.release; barrier.cluster.wait.acquire;");
}

/// Adds to one sum.
#[cube]
pub(super) fn add_to_sum(value: f32, #[comptime] index: u32) {
    gpu_asm!("add.f32 acc{index}, acc{index}, {value};", value = in(_) value);
}

/// Rounds the sums of 16 columns from `first` on and writes them, a 16 x 16 block per warp, to shared memory at `to`
/// exclusive-or `flip` (the copy engine's swizzle), plus `offset`.
#[cube]
pub(super) fn write_block(
    to: u32,
    #[comptime] first: u32,
    #[comptime] flip: u32,
    #[comptime] offset: u32,
    #[comptime] plan: Plan,
) {
    let pairs = comptime!(rounded(first, plan.element()));
    gpu_asm!(
        "{{ .reg .b32 r<4>; .reg .b32 at; {pairs}",
        "xor.b32 at, {to}, {flip}; add.u32 at, at, {offset};",
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [at], {{r0, r1, r2, r3}}; }}",
        to = in(_) to
    );
}

/// `r0..r3` from eight sums: the two halves of the rows, for each of two groups of 8 columns.
fn rounded(first: u32, element: &str) -> String {
    (0..4)
        .map(|i| {
            let low = first + 2 * i;
            format!("cvt.rn.{element}x2.f32 r{i}, acc{}, acc{low};", low + 1)
        })
        .collect::<Vec<_>>()
        .join(" ")
}
