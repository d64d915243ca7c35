() => {
  // One player at a time, and the next one goes on where the last one was: to compare, press play on another.
  let last = null;
  document.addEventListener("play", (event) => {
    const player = event.target;
    if (!player.closest(".panel")) return;
    for (const other of document.querySelectorAll(".panel audio")) if (other !== player) other.pause();
    if (last && last !== player && last.isConnected && !last.ended && player.currentTime === 0)
      player.currentTime = Math.min(last.currentTime, player.duration || last.currentTime);
    last = player;
  }, true);
}
