/// PyTorch's generator on the CPU: the Mersenne Twister (Matsumoto and Nishimura, 1998), so that random numbers which an
/// adapter's file leaves out are those that PEFT draws again.
pub(crate) struct MersenneTwister {
    state: [u32; Self::SIZE],
    next: usize,
}

impl MersenneTwister {
    const SIZE: usize = 624;
    const MIDDLE: usize = 397;

    /// Of a seed only the lower 32 bits count, as there.
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = [0_u32; Self::SIZE];
        state[0] = seed as u32;
        for i in 1..Self::SIZE {
            let before = state[i - 1];
            state[i] = 1_812_433_253_u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(i as u32);
        }
        Self {
            state,
            next: Self::SIZE,
        }
    }

    fn refill(&mut self) {
        for i in 0..Self::SIZE {
            let after = self.state[(i + 1) % Self::SIZE];
            let joined = (self.state[i] & 0x8000_0000) | (after & 0x7fff_ffff);
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + Self::MIDDLE) % Self::SIZE] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == Self::SIZE {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform in `[0, 1)`, of the 24 bits that an f32 has.
    pub(crate) fn next_f32(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference() {
        // The 10,000th number of the seed 5489, as the C++ standard states it for std::mt19937.
        let mut generator = MersenneTwister::new(5489);
        let last = (0..10_000).map(|_| generator.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }
}
