//! Named tensors and texts as one safetensors file, with the same bytes every time.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;

use crate::error::{Error, Result};

/// Bytes of the length in front of the header.
const PREFIX: usize = 8;

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// Writes tensors and texts. The library keeps texts in a hash map, whose order changes from run
/// to run, so they are put into its header here.
pub(crate) fn to_bytes(tensors: &Tensors, texts: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let broken = |message: String| Error::Tensors { message };
    let contiguous: Vec<(&String, Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, tensor.contiguous()?)))
        .collect::<Result<_>>()?;
    let entries = contiguous.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let plain = safetensors::serialize(entries, None).map_err(|e| broken(e.to_string()))?;
    let length = plain.first_chunk::<PREFIX>().map_or(0, |prefix| u64::from_le_bytes(*prefix));
    let end = PREFIX + length as usize;
    let header = plain.get(PREFIX + 1..end).unwrap_or_default();
    let header = std::str::from_utf8(header).map_err(|e| broken(e.to_string()))?;
    let texts = serde_json::to_string(texts).map_err(|e| broken(e.to_string()))?;
    let comma = if tensors.is_empty() { "" } else { "," };
    let mut header = format!(r#"{{"__metadata__":{texts}{comma}{}"#, header.trim_end());
    while !header.len().is_multiple_of(PREFIX) {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(plain.get(end..).unwrap_or_default());
    Ok(bytes)
}

/// Reads what [`to_bytes`] wrote.
pub(crate) fn from_bytes(bytes: &[u8]) -> Result<(Tensors, BTreeMap<String, String>)> {
    let broken = |message: String| Error::Tensors { message };
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| broken(e.to_string()))?;
    let texts = metadata.metadata().iter().flatten();
    let texts = texts.map(|(name, text)| (name.clone(), text.clone())).collect();
    let file = SafeTensors::deserialize(bytes).map_err(|e| broken(e.to_string()))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.tensors() {
        let dtype = view.dtype().try_into().map_err(|_| broken(format!("type of `{name}`")))?;
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
        tensors.insert(name, tensor);
    }
    Ok((tensors, texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let device = Device::Cpu;
        let tensors = Tensors::from([
            ("a".to_owned(), Tensor::new(&[[1f32, 2.], [3., 4.]], &device).unwrap().t().unwrap()),
            ("b".to_owned(), Tensor::new(&[7i64], &device).unwrap()),
            ("none".to_owned(), Tensor::from_vec(Vec::<f32>::new(), (3, 0), &device).unwrap()),
        ]);
        let texts = |n: usize| (0..n).map(|i| (format!("k{i}"), format!("\"v{i}\""))).collect();
        for count in [0, 1, 5] {
            let texts: BTreeMap<String, String> = texts(count);
            let bytes = to_bytes(&tensors, &texts).unwrap();
            assert_eq!(bytes, to_bytes(&tensors, &texts).unwrap());
            let (read, read_texts) = from_bytes(&bytes).unwrap();
            assert_eq!(read_texts, texts);
            assert_eq!(read["a"].to_vec2::<f32>().unwrap(), [[1., 3.], [2., 4.]]);
            assert_eq!(read["b"].to_vec1::<i64>().unwrap(), [7]);
            assert_eq!(read["none"].dims(), [3, 0]);
        }
        let empty = to_bytes(&Tensors::new(), &BTreeMap::new()).unwrap();
        assert!(from_bytes(&empty).unwrap().0.is_empty());
        assert!(matches!(from_bytes(b"short"), Err(Error::Tensors { .. })));
    }
}
