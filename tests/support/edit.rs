//! Fixtures with other keys and tensors than they have: files as other tools write them, and files that lie.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use handmill_runtime::format::{
    Gguf, Tensor,
    gguf::{Array, GgufWriter, MetaValue, Value as Meta, ValueType},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

use super::{Fixture, write_gguf};

/// A tensor of a safetensors file.
#[derive(Clone)]
pub struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Stored {
    /// Zeros as f32.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { dtype: Dtype::F32, shape: shape.into(), bytes: vec![0; 4 * shape.iter().product::<usize>()] }
    }
}

/// The tensors of a file by name.
pub type Tensors = BTreeMap<String, Stored>;

impl Fixture {
    /// The checkpoint folder, of one safetensors file, with text config and tensors changed.
    pub fn edited(&self, config: impl FnOnce(&mut Value), tensors: impl FnOnce(&mut Tensors)) -> TempDir {
        let folder = self.changed(config);
        edit_tensors(&folder.path().join("model.safetensors"), tensors);
        folder
    }

    /// The checkpoint folder with as many layers as that, the first ones.
    pub fn cut(&self, n_layers: usize) -> TempDir {
        let kept = |name: &str| {
            let layer = name.split_once("layers.").and_then(|(_, rest)| rest.split_once('.')).map(|(layer, _)| layer);
            layer.and_then(|layer| layer.parse::<usize>().ok()).is_none_or(|layer| layer < n_layers)
        };
        self.edited(|c| c["num_hidden_layers"] = n_layers.into(), |t| t.retain(|name, _| kept(name)))
    }

    /// The GGUF file of the fixture with changes, in a folder of its own.
    pub fn edited_gguf(&self, edit: GgufEdit<'_>) -> (TempDir, PathBuf) {
        let temp = TempDir::new().expect("temporary folder");
        let (path, edited) = (temp.path().join("model.gguf"), temp.path().join("edited.gguf"));
        write_gguf(self, &path).expect("expressible");
        let mut out = GgufWriter::new();
        let gguf = Gguf::open(&path).expect("the file just written");
        let arch = gguf.get_str("general.architecture").expect("text").expect("an architecture");
        for (key, value) in gguf.metadata() {
            let own = key.strip_prefix(arch).and_then(|key| key.strip_prefix('.')).unwrap_or(key);
            if !edit.drop.contains(&own) && edit.put.iter().all(|(put, _)| *put != own) {
                out.put(key, meta(value));
            }
        }
        for (key, value) in edit.put {
            out.put(&format!("{arch}.{key}"), value);
        }
        for info in gguf.tensors() {
            let name = edit.rename.iter().find(|(from, _)| *from == info.name).map_or(info.name, |(_, to)| to);
            out.tensor(name, &gguf.find(info.name).expect("a type that is read").expect("a tensor"));
        }
        for (name, shape) in edit.zeros {
            let zeros = Tensor::from_f32(shape.to_vec(), &vec![0.0; shape.iter().product()]);
            out.tensor(name, &zeros.expect("a tensor"));
        }
        fs::write(&edited, out.to_bytes()).expect("writing");
        (temp, edited)
    }
}

/// Changes to a GGUF file; keys are those behind the architecture.
#[derive(Default)]
pub struct GgufEdit<'a> {
    /// Keys that go.
    pub drop: &'a [&'a str],
    /// Keys that come, in place of what is there.
    pub put: Vec<(&'a str, MetaValue)>,
    /// Tensors with another name.
    pub rename: &'a [(&'a str, &'a str)],
    /// Further tensors, of zeros.
    pub zeros: &'a [(&'a str, &'a [usize])],
}

impl<'a> GgufEdit<'a> {
    /// Another value of one key.
    pub fn put(key: &'a str, value: impl Into<MetaValue>) -> Self {
        Self { put: vec![(key, value.into())], ..Self::default() }
    }
}

/// Changes the tensors of a safetensors file.
pub fn edit_tensors(path: &Path, change: impl FnOnce(&mut Tensors)) {
    let bytes = fs::read(path).expect("weights");
    let file = SafeTensors::deserialize(&bytes).expect("weights");
    let stored = |v: TensorView<'_>| Stored { dtype: v.dtype(), shape: v.shape().to_vec(), bytes: v.data().to_vec() };
    let mut tensors: Tensors = file.tensors().into_iter().map(|(name, view)| (name, stored(view))).collect();
    change(&mut tensors);
    let view = |(name, t): (&String, &'_ Stored)| (name.clone(), t.dtype, t.shape.clone(), t.bytes.clone());
    let owned: Vec<_> = tensors.iter().map(view).collect();
    let views = owned.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("bytes fit the shape"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("a file")).expect("writing");
}

/// A value as it is written again.
fn meta(value: Meta<'_>) -> MetaValue {
    match value {
        Meta::Unsigned(_, v) => u32::try_from(v).expect("32 bits").into(),
        Meta::Signed(_, v) => i32::try_from(v).expect("32 bits").into(),
        Meta::F32(v) => v.into(),
        Meta::Bool(v) => v.into(),
        Meta::Str(v) => v.into(),
        Meta::Array(array) => list(array),
        other => panic!("fixtures have no {}", other.describe()),
    }
}

fn list(array: Array<'_>) -> MetaValue {
    match array.element() {
        ValueType::Str => array.strings().expect("text").map(String::from).collect::<Vec<_>>().into(),
        ValueType::F32 => array.f32s().expect("floats").collect::<Vec<_>>().into(),
        ValueType::Bool => array.bools().expect("truth values").collect::<Vec<_>>().into(),
        ValueType::I32 => array.i32s().expect("integers").collect::<Vec<_>>().into(),
        ValueType::U32 => array.u32s().expect("integers").collect::<Vec<_>>().into(),
        other => panic!("fixtures have no arrays of {other}"),
    }
}
