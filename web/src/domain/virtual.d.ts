/** Made by build.ts. */
declare module "virtual:emojis/*" {
    const table: string;
    export default table;
}
