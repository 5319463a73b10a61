//! Lines of jobs as tests submit them.

/// Lines of one small plain image each, for tests that are about the path and not the pictures.
pub fn lines(count: usize, steps: u32) -> String {
    written(count, &format!(r#""steps":{steps},"width":64,"height":64,"method":"none""#))
}

/// Lines of one guided image each, which take their time.
pub fn guided_lines(count: usize, steps: u32) -> String {
    written(count, &format!(r#""steps":{steps}"#))
}

fn written(count: usize, rest: &str) -> String {
    let line = |seed| format!(r#"{{"prompt":"a cat and a frog","seed":{seed},{rest}}}"#);
    (0..count).map(line).collect::<Vec<_>>().join("\n")
}
