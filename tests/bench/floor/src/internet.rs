//! What stands where in headers, and the checksums.

/// The virtio header: flags, type, header length, segment size, where to sum, where to write the sum.
pub const VNET: usize = 10;
pub const NEEDS_CHECKSUM: u8 = 1;
pub const GSO_TCP4: u8 = 1;
pub const TCP: u8 = 6;
pub const FIN: u8 = 0x01;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

pub fn put(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// Writes length and checksum of an IPv4 header, and gives the sum of the pseudo header of what follows.
pub fn finish_ip(ip: &mut [u8], header: usize, length: usize) -> u64 {
    put(ip, 2, length);
    put(ip, 10, 0);
    put(ip, 10, !fold(sum(&ip[..header])));
    let length = (length - header) as u16;
    sum(&ip[12..20]) + u64::from(u16::from_ne_bytes([0, ip[9]])) + u64::from(length.to_be())
}

/// The ones' complement sum in the machine's own byte order; the compiler makes vectors of it.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let add = |sum, word| sum + u64::from(u32::from_ne_bytes(word));
    words.iter().copied().chain([last]).fold(0, add)
}

/// A sum in 16 bits, as it is put into a header. It is never all ones, so no checksum is 0, by which UDP says that it has none.
pub fn fold(sum: u64) -> usize {
    usize::from(u16::from_be((sum % 0xffff) as u16))
}
