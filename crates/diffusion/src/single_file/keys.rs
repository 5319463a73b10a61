//! Keys of the original layout as those of diffusers.

use super::Family;
use crate::weights::Part;

/// Where a tensor belongs.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    pub(super) component: &'static str,
    pub(super) key: String,
    pub(super) part: Part,
}

/// Transformer layers of ViT-H that SD 2.x uses: all but the last of 24.
const SD2_LAYERS: usize = 23;
/// Resnets a down block, and one more than in an original block of numbers.
const LAYERS: usize = 2;

/// Where a tensor of the file belongs; nowhere if no network uses it, in three places if query,
/// key and value are stored as one.
pub(super) fn translate(family: Family, key: &str, shape: &[usize]) -> Vec<Place> {
    let at = |component, key: Option<String>| {
        let whole = |key| vec![Place { component, key, part: Part::Whole }];
        key.map(whole).unwrap_or_default()
    };
    // A key that is in a network and unknown stays as it is, so that it is found to be left over.
    if let Some(rest) = key.strip_prefix("model.diffusion_model.") {
        return at("unet", unet(rest).or_else(|| Some(rest.to_owned())));
    }
    if let Some(rest) = key.strip_prefix("first_stage_model.") {
        let inside = rest.starts_with("encoder.") || rest.starts_with("decoder.");
        return at("vae", vae(rest).or_else(|| inside.then(|| rest.to_owned())));
    }
    let (clip, open_clip) = match family {
        Family::Sd1 => ("cond_stage_model.transformer.", None),
        Family::Sd2 => ("", Some(("cond_stage_model.model.", "text_encoder"))),
        Family::Sdxl => (
            "conditioner.embedders.0.transformer.",
            Some(("conditioner.embedders.1.model.", "text_encoder_2")),
        ),
    };
    if let Some(rest) = key.strip_prefix(clip).filter(|_| !clip.is_empty()) {
        // Early files lack the prefix that later ones have.
        let rest = rest.strip_prefix("text_model.").unwrap_or(rest);
        return at("text_encoder", Some(format!("text_model.{rest}")));
    }
    match open_clip {
        Some((prefix, component)) => match key.strip_prefix(prefix) {
            Some(rest) => text(component, rest, family == Family::Sd2, shape),
            None => Vec::new(),
        },
        None => Vec::new(),
    }
}

fn unet(key: &str) -> Option<String> {
    let (head, rest) = key.split_once('.')?;
    match head {
        "input_blocks" | "output_blocks" => {
            let (number, rest) = rest.split_once('.')?;
            let number: usize = number.parse().ok()?;
            if head == "output_blocks" {
                let (block, layer) = (number / (LAYERS + 1), number % (LAYERS + 1));
                return blocks(&format!("up_blocks.{block}"), layer, rest);
            }
            let Some(number) = number.checked_sub(1) else {
                return rest.strip_prefix("0.").map(|rest| format!("conv_in.{rest}"));
            };
            let (block, layer) = (number / (LAYERS + 1), number % (LAYERS + 1));
            blocks(&format!("down_blocks.{block}"), layer, rest)
        }
        "middle_block" => {
            let (number, rest) = rest.split_once('.')?;
            match number {
                "0" => Some(format!("mid_block.resnets.0.{}", resnet(rest)?)),
                "1" => Some(format!("mid_block.attentions.0.{rest}")),
                "2" => Some(format!("mid_block.resnets.1.{}", resnet(rest)?)),
                _ => None,
            }
        }
        _ => match key.rsplit_once('.')? {
            ("time_embed.0", kind) => Some(format!("time_embedding.linear_1.{kind}")),
            ("time_embed.2", kind) => Some(format!("time_embedding.linear_2.{kind}")),
            ("label_emb.0.0", kind) => Some(format!("add_embedding.linear_1.{kind}")),
            ("label_emb.0.2", kind) => Some(format!("add_embedding.linear_2.{kind}")),
            ("out.0", kind) => Some(format!("conv_norm_out.{kind}")),
            ("out.2", kind) => Some(format!("conv_out.{kind}")),
            _ => None,
        },
    }
}

/// Parts of an original block: a resnet, then perhaps a transformer, then perhaps an upsampler; or
/// a downsampler alone.
fn blocks(block: &str, layer: usize, key: &str) -> Option<String> {
    let (part, rest) = key.split_once('.')?;
    if let Some(rest) = rest.strip_prefix("op.") {
        return Some(format!("{block}.downsamplers.0.conv.{rest}"));
    }
    if let Some(rest) = rest.strip_prefix("conv.") {
        return Some(format!("{block}.upsamplers.0.conv.{rest}"));
    }
    match part {
        "0" => Some(format!("{block}.resnets.{layer}.{}", resnet(rest)?)),
        "1" => Some(format!("{block}.attentions.{layer}.{rest}")),
        _ => None,
    }
}

fn resnet(key: &str) -> Option<String> {
    let (head, kind) = key.rsplit_once('.')?;
    let head = match head {
        "in_layers.0" => "norm1",
        "in_layers.2" => "conv1",
        "emb_layers.1" => "time_emb_proj",
        "out_layers.0" => "norm2",
        "out_layers.3" => "conv2",
        "skip_connection" => "conv_shortcut",
        _ => return None,
    };
    Some(format!("{head}.{kind}"))
}

/// Resolutions of every autoencoder of these families.
const VAE_LEVELS: usize = 4;

fn vae(key: &str) -> Option<String> {
    let (part, rest) = key.split_once('.')?;
    if !matches!(part, "encoder" | "decoder") {
        return matches!(part, "quant_conv" | "post_quant_conv").then(|| key.to_owned());
    }
    let inside = |rest: &str| Some(format!("{part}.{rest}"));
    let resnet = |rest: &str| rest.replace("nin_shortcut", "conv_shortcut");
    if let Some(rest) = rest.strip_prefix("norm_out.") {
        return inside(&format!("conv_norm_out.{rest}"));
    }
    if let Some(rest) = rest.strip_prefix("mid.") {
        let (block, rest) = rest.split_once('.')?;
        let rest = match block {
            "block_1" => format!("resnets.0.{}", resnet(rest)),
            "block_2" => format!("resnets.1.{}", resnet(rest)),
            "attn_1" => {
                let (layer, kind) = rest.rsplit_once('.')?;
                let layer = match layer {
                    "norm" => "group_norm",
                    "q" => "to_q",
                    "k" => "to_k",
                    "v" => "to_v",
                    "proj_out" => "to_out.0",
                    _ => return None,
                };
                format!("attentions.0.{layer}.{kind}")
            }
            _ => return None,
        };
        return inside(&format!("mid_block.{rest}"));
    }
    let (direction, numbered) = rest.split_once('.')?;
    let (down, sampler) = match direction {
        "down" => (true, "downsample.conv."),
        "up" => (false, "upsample.conv."),
        // conv_in, conv_out
        _ => return inside(rest),
    };
    let (level, rest) = numbered.split_once('.')?;
    let level: usize = level.parse().ok()?;
    // The original counts up blocks from the top, diffusers in the order of execution.
    let (blocks, samplers) = match down {
        true => (format!("down_blocks.{level}"), "downsamplers"),
        false => (format!("up_blocks.{}", (VAE_LEVELS - 1).checked_sub(level)?), "upsamplers"),
    };
    if let Some(kind) = rest.strip_prefix(sampler) {
        return inside(&format!("{blocks}.{samplers}.0.conv.{kind}"));
    }
    inside(&format!("{blocks}.resnets.{}", resnet(rest.strip_prefix("block.")?)))
}

/// OpenCLIP's text encoder. `cut`: the last layer and the projection are not used.
fn text(component: &'static str, key: &str, cut: bool, shape: &[usize]) -> Vec<Place> {
    let place = |key: String, part| Place { component, key, part };
    let whole = |key: &str| vec![place(format!("text_model.{key}"), Part::Whole)];
    let Some(rest) = key.strip_prefix("transformer.resblocks.") else {
        return match key {
            "positional_embedding" => whole("embeddings.position_embedding.weight"),
            "token_embedding.weight" => whole("embeddings.token_embedding.weight"),
            "ln_final.weight" | "ln_final.bias" => {
                whole(&key.replace("ln_final", "final_layer_norm"))
            }
            "text_projection" if !cut => {
                let transposed = if shape.len() == 2 { Part::Transposed } else { Part::Whole };
                vec![place("text_projection.weight".into(), transposed)]
            }
            _ => Vec::new(),
        };
    };
    let Some((number, rest)) = rest.split_once('.') else { return Vec::new() };
    if number.parse::<usize>().is_ok_and(|n| cut && n >= SD2_LAYERS) {
        return Vec::new();
    }
    let layer = format!("encoder.layers.{number}");
    if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
        let thirds = ["q_proj", "k_proj", "v_proj"].into_iter().enumerate();
        let third = |(part, name): (usize, &str)| {
            place(format!("text_model.{layer}.self_attn.{name}.{kind}"), Part::Third(part))
        };
        return thirds.map(third).collect();
    }
    for (from, to) in [
        ("attn.out_proj.", "self_attn.out_proj."),
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ] {
        if let Some(kind) = rest.strip_prefix(from) {
            return whole(&format!("{layer}.{to}{kind}"));
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The tables are what diffusers' own converters do (`tests/peers/single_file.py`).
    #[test]
    fn keys_become_those_of_diffusers() {
        for (family, table) in
            [(Family::Sd1, "sd14"), (Family::Sd2, "sd21"), (Family::Sdxl, "sdxl")]
        {
            let path = format!("/../../tests/peers/golden/original_{table}.tsv");
            let path = format!("{}{path}", env!("CARGO_MANIFEST_DIR"));
            let table = std::fs::read_to_string(path).unwrap();
            let rows: Vec<Vec<&str>> =
                table.lines().map(|line| line.split('\t').collect()).collect();
            assert!(rows.len() > 1000, "{}", rows.len());
            let got: BTreeSet<String> = rows
                .iter()
                .map(|row| row[0])
                .collect::<BTreeSet<_>>()
                .into_iter()
                .flat_map(|key| {
                    let places = translate(family, key, &[3, 3]);
                    assert!(!places.is_empty(), "{family:?}: {key}");
                    places.into_iter().map(move |place| {
                        let part = match place.part {
                            Part::Whole => "whole".to_owned(),
                            Part::Third(third) => format!("third {third}"),
                            Part::Transposed => "transposed".to_owned(),
                        };
                        format!("{key} {}/{} {part}", place.component, place.key)
                    })
                })
                .collect();
            let want: BTreeSet<String> = rows
                .iter()
                .map(|row| {
                    let part = match row[2].split_once(' ') {
                        Some(("rows", range)) => {
                            let (from, to) = range.split_once("..").unwrap();
                            let (from, to): (usize, usize) =
                                (from.parse().unwrap(), to.parse().unwrap());
                            format!("third {}", from / (to - from))
                        }
                        _ if row[2] == "transpose" => "transposed".to_owned(),
                        _ => "whole".to_owned(),
                    };
                    format!("{} {} {part}", row[0], row[1])
                })
                .collect();
            let missing: Vec<_> = want.difference(&got).take(3).collect();
            let extra: Vec<_> = got.difference(&want).take(3).collect();
            assert!(got == want, "{family:?}: not {missing:?}, but {extra:?}");
        }
    }

    #[test]
    fn what_no_network_uses_is_left_out() {
        for (family, key) in [
            (Family::Sd1, "alphas_cumprod"),
            (Family::Sd1, "model_ema.decay"),
            (Family::Sd1, "first_stage_model.loss.logvar"),
            (Family::Sd2, "cond_stage_model.model.transformer.resblocks.23.ln_1.weight"),
            (Family::Sd2, "cond_stage_model.model.text_projection"),
            (Family::Sd2, "cond_stage_model.model.logit_scale"),
            (Family::Sdxl, "conditioner.embedders.1.model.logit_scale"),
        ] {
            assert_eq!(translate(family, key, &[1]), [], "{key}");
        }
    }

    #[test]
    fn what_is_unknown_inside_a_network_is_not_lost() {
        for (key, component) in [
            ("model.diffusion_model.input_blocks.1.0.new_layers.0.weight", "unet"),
            ("first_stage_model.decoder.mid.attn_1.new.weight", "vae"),
        ] {
            let places = translate(Family::Sd1, key, &[1]);
            assert_eq!(places.len(), 1, "{key}");
            assert_eq!(places[0].component, component);
            assert!(key.ends_with(&places[0].key), "{key}");
        }
    }

    #[test]
    fn early_files_lack_a_prefix() {
        let key = "cond_stage_model.transformer.embeddings.token_embedding.weight";
        let places = translate(Family::Sd1, key, &[49408, 768]);
        assert_eq!(places[0].key, "text_model.embeddings.token_embedding.weight");
    }
}
