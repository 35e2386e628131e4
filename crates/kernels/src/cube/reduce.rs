//! Sums and maxima over all units of a cube, each of which gets the result.

use cubecl::client::Client;
use cubecl::features::Plane;
use cubecl::prelude::*;

use super::memory::UNITS;

/// The units of a cube, and how they can add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Team {
    /// A power of two.
    pub(super) units: u32,
    /// The units that exchange numbers without shared memory; 1 where none can, or where their number varies.
    plane: u32,
}

impl Team {
    /// For rows of so many vectors.
    pub(super) fn new(client: &Client, vectors: usize) -> Self {
        let hardware = &client.properties().hardware;
        let ops = client.properties().features.plane.contains(Plane::Ops);
        let even = hardware.plane_size_min == hardware.plane_size_max;
        let plane = match ops && even {
            true => hardware.plane_size_max.max(1),
            false => 1,
        };
        let most = UNITS.min(hardware.max_units_per_cube);
        let needed = vectors.next_power_of_two().min(most as usize) as u32;
        Self {
            units: needed.max(plane.min(most)),
            plane: plane.min(most),
        }
    }

    pub(super) fn dim(self) -> CubeDim {
        CubeDim::new_1d(self.units)
    }

    /// The results that are combined in shared memory.
    fn parts(self) -> usize {
        (self.units / self.plane) as usize
    }

    /// Halvings of them.
    fn levels(self) -> u32 {
        self.units.ilog2()
    }
}

#[cube]
pub(super) fn cube_sum(value: f32, #[comptime] team: Team) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(team.parts()));
    let unit = UNIT_POS as usize;
    if comptime!(team.plane > 1) {
        let part = plane_sum(value);
        if UNIT_POS_PLANE == 0 {
            shared[unit / comptime!(team.plane as usize)] = part;
        }
        sync_cube();
        let mut sum = 0.0f32;
        #[unroll]
        for i in 0..comptime!(team.parts()) {
            sum += shared[i];
        }
        sum
    } else {
        shared[unit] = value;
        #[unroll]
        for level in 0..comptime!(team.levels()) {
            let step = comptime!((team.units >> (level + 1)) as usize);
            sync_cube();
            if unit < step {
                let sum = shared[unit] + shared[unit + step];
                shared[unit] = sum;
            }
        }
        sync_cube();
        shared[0]
    }
}

/// Two sums, for which units wait once where they exchange numbers without shared memory.
#[cube]
pub(super) fn cube_sums(first: f32, second: f32, #[comptime] team: Team) -> (f32, f32) {
    if comptime!(team.plane > 1) {
        let parts = comptime!(team.parts());
        let mut shared = Shared::<[f32]>::new_slice(comptime!(2 * team.parts()));
        let (first, second) = (plane_sum(first), plane_sum(second));
        if UNIT_POS_PLANE == 0 {
            let part = UNIT_POS as usize / comptime!(team.plane as usize);
            shared[part] = first;
            shared[part + parts] = second;
        }
        sync_cube();
        let mut first = 0.0f32;
        let mut second = 0.0f32;
        #[unroll]
        for i in 0..parts {
            first += shared[i];
            second += shared[i + parts];
        }
        (first, second)
    } else {
        (cube_sum(first, team), cube_sum(second, team))
    }
}

#[cube]
pub(super) fn cube_max(value: f32, #[comptime] team: Team) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(team.parts()));
    let unit = UNIT_POS as usize;
    if comptime!(team.plane > 1) {
        let part = plane_max(value);
        if UNIT_POS_PLANE == 0 {
            shared[unit / comptime!(team.plane as usize)] = part;
        }
        sync_cube();
        let mut largest = shared[0];
        #[unroll]
        for i in 1..comptime!(team.parts()) {
            largest = max(largest, shared[i]);
        }
        largest
    } else {
        shared[unit] = value;
        #[unroll]
        for level in 0..comptime!(team.levels()) {
            let step = comptime!((team.units >> (level + 1)) as usize);
            sync_cube();
            if unit < step {
                let largest = max(shared[unit], shared[unit + step]);
                shared[unit] = largest;
            }
        }
        sync_cube();
        shared[0]
    }
}
