//! States that version 1 saved are read by whatever comes after it. The files are never changed.

use excite_diffusion::{Checkpoint, Wanted, kind};
use excite_jobs::Spec;

#[test]
fn a_state_that_version_1_saved_is_read_and_gone_on_with() {
    let bytes = include_bytes!("../v1/checkpoint.safetensors");
    let checkpoint = Checkpoint::from_bytes(bytes).unwrap();
    assert_eq!((checkpoint.next_step(), checkpoint.kind()), (1, "cpu-avx512-f32"));
    let spec: Spec = serde_json::from_str(include_str!("../v1/spec.json")).unwrap();
    // Machines of another kind begin with the noise, and say so.
    let wanted = |spec: &Spec| Wanted { spec: spec.clone(), accept: None };
    assert_eq!(checkpoint.fits(&wanted(&spec), kind()).is_ok(), kind() == checkpoint.kind());
    let other = Spec { seed: spec.seed + 1, ..spec };
    assert!(checkpoint.fits(&wanted(&other), kind()).is_err());
}
