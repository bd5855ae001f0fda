// Tells the client that a stage is done. A client that shows this page in a view of its own may set its
// function only when the page is loaded: it is looked for a while.
"use strict";
(function () {
  if (window.opener && window.opener.postMessage) {
    // It says nothing but that the stage is done.
    window.opener.postMessage("authDone", "*");
  }
  var left = 100;
  function tell() {
    if (window.onAuthDone) {
      window.onAuthDone();
    } else if (left > 0) {
      left -= 1;
      setTimeout(tell, 100);
    }
  }
  tell();
})();
