/** What the emoji that are compared are called, by which two people can read them to each other. spec: client-server §SAS method: emoji */
import { language } from "../domain/i18n.ts";

const COLUMNS = ["de", "es", "ar", "zh"];

/** By the English name: German, Spanish, Arabic, Chinese. */
export const NAMES: Readonly<Record<string, string>> = {
    "Dog": "Hund|Perro|كلب|狗",
    "Cat": "Katze|Gato|قطة|猫",
    "Lion": "Löwe|León|أسد|狮子",
    "Horse": "Pferd|Caballo|حصان|马",
    "Unicorn": "Einhorn|Unicornio|أحادي القرن|独角兽",
    "Pig": "Schwein|Cerdo|خنزير|猪",
    "Elephant": "Elefant|Elefante|فيل|大象",
    "Rabbit": "Hase|Conejo|أرنب|兔子",
    "Panda": "Panda|Panda|باندا|熊猫",
    "Rooster": "Hahn|Gallo|ديك|公鸡",
    "Penguin": "Pinguin|Pingüino|بطريق|企鹅",
    "Turtle": "Schildkröte|Tortuga|سلحفاة|乌龟",
    "Fish": "Fisch|Pez|سمكة|鱼",
    "Octopus": "Oktopus|Pulpo|أخطبوط|章鱼",
    "Butterfly": "Schmetterling|Mariposa|فراشة|蝴蝶",
    "Flower": "Blume|Flor|زهرة|花",
    "Tree": "Baum|Árbol|شجرة|树",
    "Cactus": "Kaktus|Cactus|صبار|仙人掌",
    "Mushroom": "Pilz|Seta|فطر|蘑菇",
    "Globe": "Globus|Globo|كرة أرضية|地球",
    "Moon": "Mond|Luna|قمر|月亮",
    "Cloud": "Wolke|Nube|سحابة|云",
    "Fire": "Feuer|Fuego|نار|火",
    "Banana": "Banane|Plátano|موزة|香蕉",
    "Apple": "Apfel|Manzana|تفاحة|苹果",
    "Strawberry": "Erdbeere|Fresa|فراولة|草莓",
    "Corn": "Mais|Maíz|ذرة|玉米",
    "Pizza": "Pizza|Pizza|بيتزا|披萨",
    "Cake": "Kuchen|Tarta|كعكة|蛋糕",
    "Heart": "Herz|Corazón|قلب|心",
    "Smiley": "Lächeln|Carita|وجه مبتسم|笑脸",
    "Robot": "Roboter|Robot|روبوت|机器人",
    "Hat": "Hut|Sombrero|قبعة|帽子",
    "Glasses": "Brille|Gafas|نظارة|眼镜",
    "Spanner": "Schraubenschlüssel|Llave inglesa|مفتاح ربط|扳手",
    "Santa": "Weihnachtsmann|Papá Noel|بابا نويل|圣诞老人",
    "Thumbs Up": "Daumen hoch|Pulgar arriba|إبهام مرفوع|竖起大拇指",
    "Umbrella": "Regenschirm|Paraguas|مظلة|雨伞",
    "Hourglass": "Sanduhr|Reloj de arena|ساعة رملية|沙漏",
    "Clock": "Wecker|Reloj|ساعة|时钟",
    "Gift": "Geschenk|Regalo|هدية|礼物",
    "Light Bulb": "Glühbirne|Bombilla|مصباح|灯泡",
    "Book": "Buch|Libro|كتاب|书",
    "Pencil": "Bleistift|Lápiz|قلم رصاص|铅笔",
    "Paperclip": "Büroklammer|Clip|مشبك ورق|回形针",
    "Scissors": "Schere|Tijeras|مقص|剪刀",
    "Lock": "Schloss|Candado|قفل|锁",
    "Key": "Schlüssel|Llave|مفتاح|钥匙",
    "Hammer": "Hammer|Martillo|مطرقة|锤子",
    "Telephone": "Telefon|Teléfono|هاتف|电话",
    "Flag": "Flagge|Bandera|علم|旗帜",
    "Train": "Zug|Tren|قطار|火车",
    "Bicycle": "Fahrrad|Bicicleta|دراجة|自行车",
    "Aeroplane": "Flugzeug|Avión|طائرة|飞机",
    "Rocket": "Rakete|Cohete|صاروخ|火箭",
    "Trophy": "Pokal|Trofeo|كأس|奖杯",
    "Ball": "Ball|Pelota|كرة|球",
    "Guitar": "Gitarre|Guitarra|غيتار|吉他",
    "Trumpet": "Trompete|Trompeta|بوق|小号",
    "Bell": "Glocke|Campana|جرس|铃铛",
    "Anchor": "Anker|Ancla|مرساة|锚",
    "Headphones": "Kopfhörer|Auriculares|سماعات|耳机",
    "Folder": "Ordner|Carpeta|مجلد|文件夹",
    "Pin": "Stecknadel|Chincheta|دبوس|图钉",
};

/** The name in the reader's language; the English one where there is none. */
export function sasName(english: string): string {
    const column = COLUMNS.indexOf(language.value as string);
    const row = Object.hasOwn(NAMES, english) ? NAMES[english] : undefined;
    return row?.split("|")[column] ?? english;
}
