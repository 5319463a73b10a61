//! How progress looks in Redis: fields of the hash, packed changes, the script that applies them.

use std::sync::LazyLock;

use redis::{Script, ScriptInvocation};
use serde::Serialize;

use crate::done::Tally;
use crate::progress::{BatchProgress, ProgressError};
use crate::state::State;

/// Changes of one call of the script, so that it keeps nobody waiting: some 10 ms.
pub(super) const CHUNK_JOBS: usize = 1000;
/// Bytes of states in one command: 2 million jobs. A call of 250 ms moves them even at 50 Mbit/s.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// Keys: states, sums. Arguments: the revision that must be there, the highest index, changes of
/// 5 bytes each (index, state), and fields of the sums with their values.
///
/// A change beyond the end would make the string longer, so it does not fit.
const UPDATE: &str = r"
if redis.call('HGET', KEYS[2], 'revision') ~= ARGV[1] then return 0 end
local changes, jobs = ARGV[3], 2 * redis.call('STRLEN', KEYS[1])
if #changes > 0 and tonumber(ARGV[2]) >= jobs then return 0 end
local sets = {}
for i = 1, #changes, 5 do
    local a, b, c, d, state = string.byte(changes, i, i + 4)
    local n = #sets
    sets[n + 1], sets[n + 2] = 'SET', 'u4'
    sets[n + 3] = '#' .. string.format('%.0f', ((a * 256 + b) * 256 + c) * 256 + d)
    sets[n + 4] = state
    if n > 1000 or i + 5 > #changes then
        redis.call('BITFIELD', KEYS[1], unpack(sets))
        sets = {}
    end
end
if #ARGV > 3 then redis.call('HSET', KEYS[2], unpack(ARGV, 4)) end
return 1
";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(UPDATE));

/// A call of the script. It is sent whole when the server does not know it, as after a new start.
pub(super) fn update_script() -> ScriptInvocation<'static> {
    SCRIPT.prepare_invoke()
}

pub(super) fn packed_changes(changes: &[(u32, State)]) -> Vec<u8> {
    changes.iter().flat_map(|(i, s)| i.to_be_bytes().into_iter().chain([s.code()])).collect()
}

/// Fields of the hash: states as numbers of their own, so that people can read them.
pub(super) fn fields() -> Vec<&'static str> {
    ["revision", "tally"].into_iter().chain(State::ALL.map(State::as_str)).collect()
}

/// The fields with their values.
pub(super) fn sums(
    revision: &str,
    tally: &Tally,
) -> Result<Vec<(&'static str, String)>, ProgressError> {
    let rest = Tally { states: Default::default(), ..tally.clone() };
    let values = [revision.to_owned(), to_json(&rest)?];
    let states = State::ALL.map(|state| tally.of(state).to_string());
    Ok(fields().into_iter().zip(values.into_iter().chain(states)).collect())
}

/// Reads the values of [`fields`]; none if the batch is not there.
pub(super) fn progress(
    values: Vec<Option<String>>,
) -> Result<Option<BatchProgress>, ProgressError> {
    let mut values = values.into_iter();
    let (Some(Some(revision)), Some(Some(rest))) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let unreadable = |what: String| ProgressError(format!("the sums cannot be read: {what}"));
    let mut tally: Tally = serde_json::from_str(&rest).map_err(|e| unreadable(e.to_string()))?;
    for (state, count) in State::ALL.into_iter().zip(values) {
        let count = count.as_deref().map_or(Ok(0), str::parse);
        let count: u64 = count.map_err(|_| unreadable(format!("`{state}`")))?;
        if count > 0 {
            tally.states.insert(state, count);
        }
    }
    Ok(Some(BatchProgress { revision, tally }))
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, ProgressError> {
    serde_json::to_string(value).map_err(|error| ProgressError(error.to_string()))
}
