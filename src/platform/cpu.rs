//! What this machine's processor does by itself.

/// Whether it has both parts of AES-GCM: AES, and multiplication without carry.
pub fn has_aes_gcm() -> bool {
    #[cfg(target_arch = "x86_64")]
    let both = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let both = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let both = false;
    both
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_the_kernel_says() {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = info.lines().find(|line| line.starts_with("flags")).unwrap();
        let has = |flag| flags.split_whitespace().any(|one| one == flag);
        assert_eq!(has_aes_gcm(), has("aes") && has("pclmulqdq"));
    }
}
