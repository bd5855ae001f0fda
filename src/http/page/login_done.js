// Hands what a login gave to the client that shows this page. Clients set one of two functions, some only
// when the page is loaded: they are looked for a while.
"use strict";
window.matrixLogin = window.matrixLogin || {};
(function () {
  var place = document.getElementById("answer");
  var left = 100;
  if (!place) {
    return;
  }
  var answer = JSON.parse(place.dataset.answer);
  function tell() {
    if (window.onLogin) {
      window.onLogin(answer);
    } else if (window.matrixLogin.onLogin) {
      window.matrixLogin.onLogin(answer);
    } else if (left > 0) {
      left -= 1;
      setTimeout(tell, 100);
    }
  }
  tell();
})();
