//! Texts of many kinds, put together from a few of each.

/// Three sentences of prose in each of twelve languages.
pub(crate) const PROSE: [[&str; 3]; 12] = [
    [
        "The donjon is the strongest tower of a castle; it was built to hold out when the outer walls had fallen.",
        "She didn't say where they'd been, and we've never asked: it's none of our business, I'm told.",
        "In 1204 the garrison of about 140 men surrendered after six months, having eaten the last of their 12 horses.",
    ],
    [
        "Der Bergfried ist der höchste Turm der Burg und diente als letzte Zuflucht, wenn die Mauern gefallen waren.",
        "Die Bundesverfassungsgerichtsentscheidung wurde am 3. Oktober veröffentlicht, überraschte jedoch niemanden.",
        "Können Sie mir sagen, wie ich am schnellsten zum Bahnhof komme? Mein Zug fährt in zwanzig Minuten.",
    ],
    [
        "Le donjon est la tour la plus haute du château, où l'on se réfugiait quand l'enceinte était prise.",
        "Aujourd'hui, il n'y a plus qu'un écran de fumée : « l'été » dernier, c'était déjà la même chose.",
        "Les élèves étudieront les équations différentielles du second degré jusqu'à la mi-février 2026.",
    ],
    [
        "La torre del homenaje era el último refugio de los defensores cuando caían las murallas exteriores.",
        "¿Cuándo volverás? ¡No me digas que mañana! El niño está esperando desde las ocho de la mañana.",
        "El informe señala que un 37,5 % de la población vive a menos de veinte kilómetros de la costa.",
    ],
    [
        "Донжон — главная башня замка, последнее убежище защитников, когда внешние стены уже пали.",
        "Вчера вечером мы долго гуляли по набережной и говорили о книгах, которые читали в детстве.",
        "По данным переписи 2021 года, в области проживает 1 234 567 человек, из них треть — в столице.",
    ],
    [
        "城堡主楼是城堡中最坚固的塔楼，外墙失守之后，守军便退到这里继续抵抗。",
        "昨天晚上我们沿着河边散步，谈起了小时候读过的书，还有那些已经忘记名字的老师。",
        "根据二〇二一年的统计，该地区共有1234567名居民，其中约三分之一住在省会。",
    ],
    [
        "天守は城の中心となる最も高い建物で、外郭が落ちた後の最後の砦とされていた。",
        "きのうの夜、川沿いを散歩しながら、子どものころに読んだ本の話をしました。",
        "このプログラムはデータベースに接続し、ユーザーの一覧をコンソールに表示します。",
    ],
    [
        "아성은 성에서 가장 튼튼한 탑으로, 바깥 성벽이 무너진 뒤에도 버틸 수 있도록 지어졌다.",
        "어제저녁에 우리는 강가를 걸으면서 어린 시절에 읽었던 책에 대해 오랫동안 이야기했다.",
        "2021년 조사에 따르면 이 지역에는 약 123만 명이 살고 있으며 그중 삼분의 일이 도시에 산다.",
    ],
    [
        "البرج الرئيسي هو أقوى أبراج القلعة، وقد بُني ليصمد عندما تسقط الأسوار الخارجية.",
        "مشينا مساء أمس على ضفة النهر وتحدثنا عن الكتب التي قرأناها في طفولتنا.",
        "وفقًا لإحصاء عام 2021 يعيش في المنطقة نحو مليون ومئتي ألف نسمة، ثلثهم في العاصمة.",
    ],
    [
        "मुख्य बुर्ज किले की सबसे मज़बूत मीनार थी, जहाँ बाहरी दीवारें गिरने के बाद रक्षक शरण लेते थे।",
        "कल शाम हम नदी के किनारे टहल रहे थे और बचपन में पढ़ी हुई किताबों के बारे में बात कर रहे थे।",
        "सन् 2021 की जनगणना के अनुसार इस क्षेत्र में लगभग बारह लाख लोग रहते हैं।",
    ],
    [
        "İç kale, dış surlar düştüğünde savunucuların sığındığı en güçlü kuleydi; duvarları üç metreden kalındı.",
        "Dün akşam nehir kıyısında yürürken çocukluğumuzda okuduğumuz kitaplardan söz ettik.",
        "Çekoslovakyalılaştıramadıklarımızdan mısınız, diye sordu öğretmen gülümseyerek.",
    ],
    [
        "Το ακροπύργιο ήταν ο ισχυρότερος πύργος του κάστρου και το τελευταίο καταφύγιο των υπερασπιστών.",
        "Χθες το βράδυ περπατήσαμε δίπλα στο ποτάμι και μιλήσαμε για τα βιβλία της παιδικής μας ηλικίας.",
        "Σύμφωνα με την απογραφή του 2021, στην περιοχή ζουν περίπου ένα εκατομμύριο κάτοικοι.",
    ],
];

/// Programs.
pub(crate) const CODE: [&str; 5] = [
    "fn longest<'a>(words: &[&'a str]) -> Option<&'a str> {\n    words.iter().copied().max_by_key(|word| word.len())\n}\n\n#[test]\nfn the_longest_is_found() {\n    assert_eq!(longest(&[\"a\", \"abc\", \"ab\"]), Some(\"abc\"));\n}\n",
    "def fibonacci(n: int) -> list[int]:\n    \"\"\"The first n numbers.\"\"\"\n    numbers = [0, 1]\n    while len(numbers) < n:\n        numbers.append(numbers[-1] + numbers[-2])\n    return numbers[:n]\n\n\nif __name__ == '__main__':\n    print(fibonacci(20))\n",
    "export async function fetchUser(id) {\n\tconst response = await fetch(`/api/users/${encodeURIComponent(id)}?expand=profile,roles`);\n\tif (!response.ok) {\n\t\tthrow new HttpError(response.status, await response.text());\n\t}\n\treturn response.json(); // parsed\n}\n",
    "SELECT u.id, u.email, COUNT(*) AS orders\r\nFROM users u\r\nLEFT JOIN orders o ON o.user_id = u.id\r\nWHERE u.created_at >= '2024-01-01' AND o.total_cents > 10000\r\nGROUP BY 1, 2\r\nHAVING COUNT(*) > 3;\r\n",
    "<section class=\"hero hero--large\" data-id=\"42\">\n  <h1>Welcome&nbsp;back!</h1>\n  <p style=\"color:#ff8800;margin:0 auto\">You have <b>3</b> new messages.</p>\n  <!-- TODO: remove -->\n</section>\n",
];

/// JSON texts.
pub(crate) const JSON: [&str; 3] = [
    "{\"id\":\"chatcmpl-8f3a2b\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":\"tool_calls\"}],\"usage\":{\"prompt_tokens\":1234,\"completion_tokens\":56}}",
    "{\n  \"name\": \"get_weather\",\n  \"description\": \"Get the current weather in a given location.\",\n  \"parameters\": {\n    \"type\": \"object\",\n    \"properties\": {\n      \"location\": { \"type\": \"string\" },\n      \"unit\": { \"enum\": [\"celsius\", \"fahrenheit\"] }\n    }\n  }\n}",
    "[[0.0132,-1.5e-7,3.14159],[2,4,8,16,32,64,128,256,512,1024],[true,false,null],\"\\u00e9\\n\\t\\\"\"]",
];

/// What breaks tokenizers.
pub(crate) const ODD: [&str; 24] = [
    "👨‍👩‍👧‍👦 🏳️‍🌈 🇫🇷🇯🇵 👍🏽 😀😃😄",
    "\u{0}\u{1}\u{7}\u{8}\u{1b}[31mred\u{1b}[0m\u{7f}",
    "a\u{a0}b\u{a0}\u{a0}c \u{a0} d",
    "\u{2003}\u{2009}\u{202f}x\u{3000}y\u{1680}",
    "\u{85}\u{2028}\u{2029}\u{b}\u{c}",
    "\u{200b}\u{200d}\u{feff}\u{2060}",
    "e\u{301}e\u{301} n\u{303}\u{303}\u{303} Z\u{336}\u{321}a\u{335}l\u{334}g\u{337}o\u{338}",
    "  \n\n   \n \t\t\n\r\n\r\n  ",
    "\n\n\n\n\n\n\n\nx\n\n",
    "        indented\n            more\n\t\ttabs",
    "don't DON'T Don'T we'LL I'M'S 's 'S '' ''' x'y'z",
    "1 12 123 1234 12345678901234567890 ½ ² Ⅷ ٣٤٥ १२३",
    "!!!!!!!!!! ........ ,,,, ---- ==== ____ //// \\\\\\\\ ////\n/ ./\r/",
    "<|endoftext|><|im_start|>system<|im_end|><|endofprompt|>",
    "https://example.com/a/b/c.html?query=1&other=%20x#frag_ment",
    "aGVsbG8gd29ybGQhIFRoaXMgaXMgYmFzZTY0IGVuY29kZWQgdGV4dA==",
    "550e8400-e29b-41d4-a716-446655440000 0xDEADBEEF 127.0.0.1:8080",
    "camelCaseIdentifier SCREAMING_SNAKE_CASE kebab-case-name PascalCase XMLHttpRequest",
    "ǅ ǈ ǋ ß ſ İ ı ŉ ﬁ ﬃ Å Å",
    "\u{10ffff}\u{e000}\u{fffd}\u{378}",
    "สวัสดีครับ ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "Tiếng Việt có rất nhiều dấu thanh, phải không?",
    "שלום עולם, מה שלומך היום?",
    "ሰላም ለዓለም ᚠᚢᚦᚨᚱᚲ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀𓀁𓀂",
];

/// All of the pieces above.
pub(crate) fn pieces() -> Vec<&'static str> {
    let prose = PROSE.iter().flatten();
    prose
        .chain(&CODE)
        .chain(&JSON)
        .chain(&ODD)
        .copied()
        .collect()
}

/// `count` texts of one to eight pieces, or parts of pieces, put together in odd ways.
pub(crate) fn texts(count: usize, seed: u64) -> impl Iterator<Item = String> {
    let pieces = pieces();
    let mut dice = fastrand::Rng::with_seed(seed);
    let joints = [
        "",
        " ",
        "\n",
        "\n\n",
        "  ",
        "\t",
        "\u{a0}",
        "\r\n",
        "/",
        "'",
        " \u{2003}",
    ];
    (0..count).map(move |_| {
        let mut text = String::new();
        for _ in 0..dice.usize(1..=8) {
            let piece = pieces[dice.usize(..pieces.len())];
            let from = piece
                .char_indices()
                .nth(dice.usize(..12))
                .map_or(0, |(at, _)| at);
            let piece = &piece[if dice.bool() { 0 } else { from }..];
            text.push_str(piece);
            for _ in 0..dice.usize(..3) {
                text.push_str(joints[dice.usize(..joints.len())]);
            }
        }
        text
    })
}

/// A text of about `bytes` bytes of all kinds.
pub(crate) fn long(bytes: usize, seed: u64) -> String {
    let mut text = String::with_capacity(bytes + 4_096);
    let mut more = texts(usize::MAX, seed);
    while text.len() < bytes {
        text.extend(more.next());
    }
    text
}
