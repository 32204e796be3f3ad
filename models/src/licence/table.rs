//! Licences of open-weights models. The link of each row is the source of what it says; where one address has no text of
//! its own, the section is named.

/// A known licence.
#[derive(Debug)]
pub struct Row {
    /// Names in files and on the hub, as [`plain`] writes them.
    ids: &'static [&'static str],
    /// Parts of titles, as [`plain`] writes them, that occur in no other row's title unless that comes first.
    titles: &'static [&'static str],
    /// Its full name.
    pub name: &'static str,
    /// Its text; empty where each publisher has one of its own.
    pub link: &'static str,
    /// One sentence on what it restricts; none for free licences.
    pub restricts: Option<&'static str>,
}

/// The licence that files or a hub call so, or whose title it is.
pub fn of_name(name: &str) -> Option<&'static Row> {
    let name = plain(name);
    TABLE.iter().find(|row| row.ids.contains(&&name[..])).or_else(|| of_plain_title(&name))
}

/// The licence whose text begins so.
pub fn of_title(text: &str) -> Option<&'static Row> {
    of_plain_title(&plain(text))
}

fn of_plain_title(text: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.titles.iter().any(|title| text.contains(title)))
}

/// Letters and digits alone, in lower case: `Llama 3.2` and `llama3.2` are the same.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

const fn free(
    ids: &'static [&'static str],
    titles: &'static [&'static str],
    name: &'static str,
    link: &'static str,
) -> Row {
    Row { ids, titles, name, link, restricts: None }
}

const fn bound(
    ids: &'static [&'static str],
    titles: &'static [&'static str],
    name: &'static str,
    link: &'static str,
    restricts: &'static str,
) -> Row {
    Row { ids, titles, name, link, restricts: Some(restricts) }
}

const NON_COMMERCIAL: &str = "no commercial use";
const SHARE_ALIKE: &str = "what is made from it must be published under the same licence";
const USES: &str = "forbids a list of uses, and whoever passes the model on must forbid them too";
/// Section 1.b of each, "Redistribution and Use", and section 2, "Additional Commercial Terms".
const LLAMA: &str = "an acceptable-use policy; copies must say \"Built with Llama\" and derived models begin with \
                     \"Llama\"; over 700 million monthly users need a licence from Meta";
/// Section 1.b.v, and section 2.
const LLAMA_2: &str = "an acceptable-use policy; its output may not improve other language models; over 700 million \
                       monthly users need a licence from Meta";
/// Sections 1.b.i and 1.b.v, and section 2.
const LLAMA_3: &str = "an acceptable-use policy; copies must say \"Built with Meta Llama 3\" and derived models begin with \
                       \"Llama 3\"; its output may not improve other language models; over 700 million monthly users need \
                       a licence from Meta";
/// The acceptable-use policy of each, on multimodal models.
const LLAMA_EU: &str = "an acceptable-use policy; copies must say \"Built with Llama\" and derived models begin with \
                        \"Llama\"; over 700 million monthly users need a licence from Meta; multimodal models are not \
                        licensed to people and companies in the EU";

/// More specific rows come before those whose titles theirs contain.
const TABLE: &[Row] = &[
    free(
        &["apache20", "apache2"],
        &["apachelicense"],
        "Apache License 2.0",
        "https://www.apache.org/licenses/LICENSE-2.0",
    ),
    bound(
        &["kimik2"],
        &["modifiedmitlicensecopyrightc2025moonshotai"],
        "Modified MIT License of Kimi K2",
        "https://huggingface.co/moonshotai/Kimi-K2-Instruct/blob/main/LICENSE",
        "products with over 100 million monthly users or 20 million dollars of monthly revenue must show the model's name",
    ),
    // Several publishers call a licence so, each with conditions of its own; so there is no one address.
    bound(
        &["modifiedmit", "modifiedmitlicense"],
        &["modifiedmitlicense"],
        "Modified MIT License",
        "",
        "a condition of the publisher's own, mostly on large commercial products: read it",
    ),
    free(
        &["mit"],
        &["mitlicense", "permissionisherebygrantedfreeofcharge"],
        "MIT License",
        "https://opensource.org/license/mit",
    ),
    free(&["bsd3clause", "bsd"], &[], "BSD 3-Clause License", "https://opensource.org/license/bsd-3-clause"),
    free(&["bsd2clause"], &[], "BSD 2-Clause License", "https://opensource.org/license/bsd-2-clause"),
    free(&["cc010"], &[], "Creative Commons Zero 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    free(&["unlicense"], &[], "The Unlicense", "https://unlicense.org/"),
    free(
        &["openmdw11"],
        &["openmdwlicenseagreementversion11"],
        "OpenMDW License 1.1",
        "https://github.com/OpenMDW/openmdw/blob/main/1.1/LICENSE.OpenMDW-1.1",
    ),
    free(&["openmdw10", "openmdw"], &["openmdwlicense"], "OpenMDW License 1.0", "https://openmdw.ai/license/1-0/"),
    free(&["ccby40"], &[], "Creative Commons Attribution 4.0", "https://creativecommons.org/licenses/by/4.0/"),
    bound(
        &["ccbysa40"],
        &[],
        "Creative Commons Attribution-ShareAlike 4.0",
        "https://creativecommons.org/licenses/by-sa/4.0/",
        SHARE_ALIKE,
    ),
    bound(
        &["ccbync40"],
        &["attributionnoncommercial40"],
        "Creative Commons Attribution-NonCommercial 4.0",
        "https://creativecommons.org/licenses/by-nc/4.0/",
        NON_COMMERCIAL,
    ),
    bound(
        &["ccbync30"],
        &[],
        "Creative Commons Attribution-NonCommercial 3.0",
        "https://creativecommons.org/licenses/by-nc/3.0/",
        NON_COMMERCIAL,
    ),
    bound(
        &["ccbyncsa40"],
        &["attributionnoncommercialsharealike40"],
        "Creative Commons Attribution-NonCommercial-ShareAlike 4.0",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/",
        "no commercial use, and what is made from it must be published under the same licence",
    ),
    bound(
        &["ccbyncnd40"],
        &["attributionnoncommercialnoderivatives40"],
        "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0",
        "https://creativecommons.org/licenses/by-nc-nd/4.0/",
        "no commercial use, and nothing made from it may be passed on",
    ),
    bound(
        &["agpl30"],
        &["gnuafferogeneralpubliclicense"],
        "GNU AGPL 3.0",
        "https://www.gnu.org/licenses/agpl-3.0.html",
        SHARE_ALIKE,
    ),
    bound(&["gpl30"], &[], "GNU GPL 3.0", "https://www.gnu.org/licenses/gpl-3.0.html", SHARE_ALIKE),
    bound(
        &["llama2"],
        &["llama2communitylicense"],
        "Llama 2 Community License",
        "https://ai.meta.com/llama/license/",
        LLAMA_2,
    ),
    bound(
        &["llama31"],
        &["llama31communitylicense"],
        "Llama 3.1 Community License",
        "https://www.llama.com/llama3_1/license/",
        LLAMA,
    ),
    bound(
        &["llama32"],
        &["llama32communitylicense"],
        "Llama 3.2 Community License",
        "https://www.llama.com/llama3_2/license/",
        LLAMA_EU,
    ),
    bound(
        &["llama33"],
        &["llama33communitylicense"],
        "Llama 3.3 Community License",
        "https://www.llama.com/llama3_3/license/",
        LLAMA,
    ),
    bound(
        &["llama3"],
        &["llama3communitylicense"],
        "Llama 3 Community License",
        "https://www.llama.com/llama3/license/",
        LLAMA_3,
    ),
    bound(
        &["llama4"],
        &["llama4communitylicense"],
        "Llama 4 Community License",
        "https://www.llama.com/llama4/license/",
        LLAMA_EU,
    ),
    // Sections 3.1, 3.2 and 4.1.
    bound(
        &["gemma"],
        &["gemmatermsofuse"],
        "Gemma Terms of Use",
        "https://ai.google.dev/gemma/terms",
        "a prohibited-use policy that must be passed on with the model and with what is made from it; Google may restrict \
         uses that break it",
    ),
    bound(
        &["qwenresearch", "qwenresearchlicense"],
        &["qwenresearchlicense"],
        "Qwen Research License",
        "https://huggingface.co/Qwen/Qwen2.5-3B-Instruct/blob/main/LICENSE",
        "research and evaluation only, no commercial use without a licence from Alibaba Cloud; models made with it or its \
         output must say \"Built with Qwen\" or \"Improved using Qwen\"",
    ),
    bound(
        &["qwen", "qwenlicense"],
        &["qwenlicenseagreement"],
        "Qwen License",
        "https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/blob/main/LICENSE",
        "over 100 million monthly users need a licence from Alibaba Cloud; models made with it or its output must say \
         \"Built with Qwen\" or \"Improved using Qwen\"",
    ),
    bound(
        &["tongyiqianwen", "tongyiqianwenlicenseagreement"],
        &["tongyiqianwenlicenseagreement"],
        "Tongyi Qianwen License",
        "https://github.com/QwenLM/Qwen/blob/main/Tongyi%20Qianwen%20LICENSE%20AGREEMENT",
        "over 100 million monthly users need a licence from Alibaba Cloud; its output may not improve other language models",
    ),
    bound(
        &["tongyiqianwenresearch"],
        &["tongyiqianwenresearchlicense"],
        "Tongyi Qianwen Research License",
        "https://github.com/QwenLM/Qwen/blob/main/Tongyi%20Qianwen%20RESEARCH%20LICENSE%20AGREEMENT",
        "research and evaluation only, no commercial use without a licence from Alibaba Cloud; its output may not improve \
         other language models",
    ),
    bound(
        &["mrl", "mistralresearch", "mistralairesearchlicence", "mistralairesearchlicense"],
        &["mistralairesearchlicen"],
        "Mistral AI Research License",
        "https://mistral.ai/licenses/MRL-0.1.md",
        "research and personal use only, no commercial use without a licence from Mistral",
    ),
    bound(
        &["mnpl", "mnpl01"],
        &["mistralainonproductionlicen"],
        "Mistral AI Non-Production License",
        "https://mistral.ai/licenses/MNPL-0.1.md",
        "testing, research and personal use only, nothing in production without a licence from Mistral",
    ),
    // Attachment A.
    bound(
        &["deepseek", "deepseeklicense", "deepseekmodellicense"],
        &["deepseeklicenseagreement", "deepseekmodellicense"],
        "DeepSeek Model License",
        "https://github.com/deepseek-ai/DeepSeek-V3/blob/main/LICENSE-MODEL",
        USES,
    ),
    bound(
        &["falconllmlicense", "falcon3", "tiifalconllmlicense", "falconllm"],
        &["falconllmlicense", "falcon3tiifalcon", "tiifalconllmlicense", "falcon180btiilicense"],
        "TII Falcon License",
        "https://falconllm.tii.ae/falcon-terms-and-conditions.html",
        "an acceptable-use policy that must be passed on; some versions want a licence for hosting the model as a service",
    ),
    bound(
        &["bigcodeopenrailm"],
        &["bigcodeopenrailm"],
        "BigCode OpenRAIL-M",
        "https://huggingface.co/spaces/bigcode/bigcode-model-license-agreement",
        USES,
    ),
    bound(
        &["bigsciencebloomrail10"],
        &["bigsciencerail"],
        "BigScience BLOOM RAIL 1.0",
        "https://huggingface.co/spaces/bigscience/license",
        USES,
    ),
    bound(&["openrail", "bigscienceopenrailm"], &["openraillicense"], "OpenRAIL", "https://www.licenses.ai/", USES),
    bound(
        &["exaone", "exaonelicense"],
        &["exaoneaimodellicense"],
        "EXAONE AI Model License",
        "https://huggingface.co/LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct/blob/main/LICENSE",
        "no commercial use without a licence from LG; versions before 1.2 allow research only",
    ),
    bound(
        &["lfm10", "lfmopenlicense"],
        &["lfmopenlicense"],
        "LFM Open License 1.0",
        "https://huggingface.co/LiquidAI/LFM2-1.2B/blob/main/LICENSE",
        "companies with 10 million dollars of yearly revenue and more may not use it commercially",
    ),
    bound(
        &["nvidiaopenmodellicense"],
        &["nvidiaopenmodellicense"],
        "NVIDIA Open Model License",
        "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/",
        "ends for whoever bypasses its guardrails without a substitute, or sues over the model",
    ),
    bound(
        &["tencenthunyuancommunity", "tencentlicense"],
        &["tencenthunyuancommunitylicense"],
        "Tencent Hunyuan Community License",
        "https://huggingface.co/tencent/Hunyuan-A13B-Instruct/blob/main/LICENSE",
        "not for the EU, the UK and South Korea; over 100 million monthly users need a licence from Tencent",
    ),
    bound(
        &["stabilityaicommunity", "stabilityaicommunitylicense"],
        &["stabilityaicommunitylicense"],
        "Stability AI Community License",
        "https://stability.ai/community-license-agreement",
        "companies with 1 million dollars of yearly revenue and more need a licence from Stability",
    ),
    bound(
        &["jambaopenmodellicense"],
        &["jambaopenmodellicense"],
        "Jamba Open Model License",
        "https://www.ai21.com/jamba-open-model-license/",
        "companies with 50 million dollars of yearly revenue and more may not use it commercially",
    ),
    bound(
        &["databricksopenmodellicense"],
        &["databricksopenmodellicense"],
        "Databricks Open Model License",
        "https://www.databricks.com/legal/open-model-license",
        "an acceptable-use policy; its output may not improve other language models; over 700 million monthly users need a \
         licence",
    ),
    bound(
        &["appleamlr"],
        &["applemachinelearningresearchmodel"],
        "Apple Machine Learning Research Model License",
        "https://huggingface.co/apple/FastVLM-0.5B/blob/main/LICENSE",
        "research only, no commercial use",
    ),
    bound(
        &["microsoftresearchlicense", "msrla"],
        &["microsoftresearchlicense"],
        "Microsoft Research License",
        "https://huggingface.co/microsoft/Orca-2-7b/blob/main/LICENSE",
        "research only, no commercial use",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn rows_are_plain_distinct_and_linked() {
        let mut seen = HashSet::new();
        for row in TABLE {
            for id in row.ids.iter().chain(row.titles) {
                assert_eq!(plain(id), **id, "{id} cannot match");
            }
            assert!(row.ids.iter().all(|id| seen.insert(*id)), "{row:?}");
            let own = row.ids.contains(&"modifiedmit");
            assert!(if own { row.link.is_empty() } else { row.link.starts_with("https://") }, "{row:?}");
            assert!(row.restricts.is_none_or(|text| !text.ends_with('.') && !text.contains("  ")), "{row:?}");
        }
    }

    #[test]
    fn a_title_is_its_own_rows() {
        for row in TABLE.iter().filter(|row| !row.titles.is_empty()) {
            for title in row.titles {
                assert_eq!(of_plain_title(title).map(|found| found.name), Some(row.name), "{title}");
            }
        }
    }
}
