//! Masking (RFC 6455 §5.3): every payload byte from a client is XORed with a byte of a 4-byte key, in rotation.

/// One step of the bulk loop: two SSE2 registers, or one AVX2 register.
const BLOCK: usize = 32;

/// XORs `data` in place with the masking key, starting at the key's byte `offset % 4`.
///
/// `offset` is the position of `data` in its frame's payload, so that a payload can be unmasked in pieces as it
/// arrives. Masking and unmasking are the same operation.
#[inline]
pub fn unmask(data: &mut [u8], key: [u8; 4], offset: usize) {
    let key = rotated(key, offset);
    let mut block_key = [0; BLOCK];
    for quarter in block_key.chunks_exact_mut(4) {
        quarter.copy_from_slice(&key);
    }
    let (blocks, rest) = data.as_chunks_mut::<BLOCK>();
    for block in blocks {
        for (byte, key_byte) in block.iter_mut().zip(block_key) {
            *byte ^= key_byte;
        }
    }
    for (byte, key_byte) in rest.iter_mut().zip(block_key) {
        *byte ^= key_byte;
    }
}

/// The key, rotated to apply from `offset` on.
#[inline]
fn rotated(key: [u8; 4], offset: usize) -> [u8; 4] {
    let bits = 8 * (offset % key.len()) as u32;
    u32::from_le_bytes(key).rotate_right(bits).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_of_the_rfc() {
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&payload, b"Hello");
    }

    #[test]
    fn agrees_with_the_definition_at_every_length_offset_and_alignment() {
        let key = [0x11, 0x22, 0x44, 0x88];
        let original: Vec<u8> = (0..=255).collect();
        for start in 0..8 {
            for length in 0..130 {
                for offset in 0..4 {
                    let mut data = original.clone();
                    unmask(&mut data[start..start + length], key, offset);
                    let expected: Vec<u8> = (0..length).map(|i| original[start + i] ^ key[(i + offset) % 4]).collect();
                    assert_eq!(&data[start..start + length], expected);
                    assert_eq!(data[start + length..], original[start + length..]);
                }
            }
        }
    }

    #[test]
    fn an_offset_of_any_size_wraps() {
        let mut data = *b"abcdef";
        unmask(&mut data, [1, 2, 3, 4], usize::MAX - 2);
        let mut same = *b"abcdef";
        unmask(&mut same, [1, 2, 3, 4], 1);
        assert_eq!(data, same);
    }
}
