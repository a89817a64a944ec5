(async () => {
  const frame = window.frameElement;
  const binary = atob(frame.dataset.page), packed = new Uint8Array(binary.length);
  for (let n = 0; n < packed.length; n++) packed[n] = binary.charCodeAt(n);
  const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.open();
  document.write(text);
  document.close();
  const fit = () => { frame.style.height = document.documentElement.offsetHeight + 40 + "px"; };
  new ResizeObserver(fit).observe(document.documentElement);
  fit();
})();
